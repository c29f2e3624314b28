/** A model with all that reads it: opened once, closed once. */

import type { MessageEdit } from '../../onnx/edit.js';
import { editedModel } from '../../onnx/edited-model.js';
import { ExternalFiles } from '../../onnx/external.js';
import type { Model } from '../../onnx/model.js';
import { openModel } from '../../onnx/parse.js';
import { TensorReader } from '../../onnx/tensor.js';
import { PatchedModel } from './patched.js';

/** An open model: its structure, its data files, the numbers of its tensors, the adapters in it. */
export class OpenedModel {
  /** Data files beside the model, opened when they are needed. */
  readonly files: ExternalFiles;
  /** Reads the numbers of tensors, external ones too. */
  readonly reader: TensorReader;
  private view: PatchedModel | undefined;
  private readonly derived: OpenedModel[] = [];

  constructor(
    /** The parsed file. */
    readonly model: Model,
  ) {
    this.files = new ExternalFiles(model);
    this.reader = new TensorReader(model, this.files);
  }

  /** @throws OnnxLoraError `file-not-found`, `not-a-file`, `invalid-model` */
  static open(path: string): OpenedModel {
    return new OpenedModel(openModel(path));
  }

  /**
   * The model as one with adapters or slots, read when it is asked for first.
   * @throws OnnxLoraError `invalid-manifest`
   */
  get patched(): PatchedModel {
    this.view ??= new PatchedModel(this.model);
    return this.view;
  }

  /** The model's name in messages: its path. */
  get label(): string {
    return this.model.source.label;
  }

  /**
   * The model as an edit leaves it, without being written. It reads from this one and is closed with it.
   * @throws OnnxLoraError those of computing the edit
   */
  async edited(edit: MessageEdit): Promise<OpenedModel> {
    const edited = new OpenedModel(await editedModel(this.model, edit));
    this.derived.push(edited);
    return edited;
  }

  /** May be called again. */
  close(): void {
    for (const edited of this.derived) edited.close();
    this.files.close();
    this.model.close();
  }
}

/**
 * Opens the model at `path`, and closes it when `use` is done with it, or fails.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `invalid-model`, and those of `use`
 */
export async function withModel<T>(
  path: string,
  use: (opened: OpenedModel) => T | Promise<T>,
): Promise<T> {
  const opened = OpenedModel.open(path);
  try {
    return await use(opened);
  } finally {
    opened.close();
  }
}
