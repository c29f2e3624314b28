/** A model with everything that reads it. */

import { PatchedModel } from '../../adapters/model/patched.js';
import { OnnxLoraError } from '../../errors.js';
import { ExternalFiles } from '../../onnx/external.js';
import { openModel } from '../../onnx/parse.js';
import { TensorReader } from '../../onnx/tensor.js';

export class OpenedModel {
  readonly patched: PatchedModel;
  readonly reader: TensorReader;
  private readonly files: ExternalFiles;

  private constructor(readonly model: ReturnType<typeof openModel>) {
    this.files = new ExternalFiles(model);
    this.reader = new TensorReader(model, this.files);
    this.patched = new PatchedModel(model);
  }

  /** @throws OnnxLoraError `unsupported` for a model with adapters, and those of reading */
  static open(path: string): OpenedModel {
    const model = openModel(path);
    try {
      const opened = new OpenedModel(model);
      if (opened.patched.sets.length === 0) return opened;
      throw new OnnxLoraError(
        'unsupported',
        `${path} carries adapters, expected a model whose changes are in its weights`,
        { hint: 'Fold them first: onnx-lora merge MODEL' },
      );
    } catch (error) {
      model.close();
      throw error;
    }
  }

  get label(): string {
    return this.model.source.label;
  }

  close(): void {
    this.files.close();
    this.model.close();
  }
}
