/**
 * External data: weights in files beside the model. The model file is not trusted, so a location
 * has to stay inside the model's folder, and a range inside its file.
 * Format: https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
 */
import { realpathSync } from 'node:fs';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import {
  type Attribute,
  allGraphs,
  type Graph,
  type Model,
  type Node,
  type Tensor,
} from './model.js';
import { FileSource, fileError } from './source.js';

/** A tensor and the messages around it. */
export interface TensorPlace {
  /** The tensor. */
  readonly tensor: Tensor;
  /** The graph that holds it. */
  readonly graph: Graph;
  /** The node and attribute that hold it; undefined for an initializer. */
  readonly node?: Node | undefined;
  /** The attribute that holds it; undefined for an initializer. */
  readonly attribute?: Attribute | undefined;
}

/** Every tensor message of the model: initializers and Constant values. */
export function* allTensors(model: Model): Generator<TensorPlace> {
  for (const root of [model.graph, ...model.functions.map((f) => f.body)]) {
    for (const graph of allGraphs(root)) {
      for (const tensor of graph.initializers.values()) yield { tensor, graph };
      for (const node of graph.nodes) {
        for (const attribute of node.attributes.values()) {
          if (attribute.tensor) yield { tensor: attribute.tensor, graph, node, attribute };
        }
      }
    }
  }
}

/** The locations of all external data files, as the model names them, each once. */
export function externalLocations(model: Model): string[] {
  const locations = new Set<string>();
  for (const { tensor } of allTensors(model)) {
    if (tensor.data.kind === 'external') locations.add(tensor.data.location);
  }
  return [...locations];
}

/**
 * The path of an external data file.
 * @throws OnnxLoraError `external-data` where it is missing or lies outside the model's folder
 */
export function resolveLocation(model: Model, location: string, tensor?: string): string {
  const { path, label } = model.source;
  const where = `${label}: external data ${JSON.stringify(location)}${tensor ? ` of tensor ${tensor}` : ''}`;
  if (path === undefined) {
    throw new OnnxLoraError('external-data', `${where}: a model in memory has no folder`, {
      hint: 'Open the model from its file.',
    });
  }
  const folder = dirname(path);
  if (
    location === '' ||
    isAbsolute(location) ||
    location.includes('\0') ||
    leavesFolder(location)
  ) {
    throw outside(where);
  }
  const target = join(folder, location);
  const [realTarget, realFolder] = [realPath(target, where), realpathSync(folder)];
  if (leavesFolder(relative(realFolder, realTarget))) throw outside(where);
  return target;
}

/** Whether a relative path would not stay in its folder. */
export function leavesFolder(path: string): boolean {
  return isAbsolute(path) || /^[a-z]:/i.test(path) || path.split(/[\\/]/).includes('..');
}

function realPath(path: string, where: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw fileError(path, error);
    throw new OnnxLoraError('external-data', `${where} does not exist (expected ${path})`, {
      hint: 'Keep the data file beside the model, under the name it was exported with.',
      cause: error,
    });
  }
}

function outside(where: string): OnnxLoraError {
  return new OnnxLoraError('external-data', `${where} is not inside the model's folder`, {
    hint: `Only files below the model's folder are read (no absolute path, no "..${sep}", no link out). Export the model anew.`,
  });
}

/**
 * Checks that the data of all tensors is there, without reading it.
 * @throws OnnxLoraError `external-data`
 */
export function checkExternalData(model: Model): void {
  const files = new ExternalFiles(model);
  try {
    for (const { tensor } of allTensors(model)) {
      if (tensor.data.kind !== 'external') continue;
      const { location, offset, length = 0 } = tensor.data;
      const source = files.source(location, tensor.name);
      const end = offset + length;
      if (end > source.size) throw tooShort(model, tensor, offset, end, source);
    }
  } finally {
    files.close();
  }
}

/** The error for a data file that ends before a tensor does. */
export function tooShort(
  model: Model,
  tensor: Tensor,
  start: number,
  end: number,
  file: { readonly path: string; readonly size: number },
): OnnxLoraError {
  return new OnnxLoraError(
    'external-data',
    `${model.source.label}: tensor ${tensor.name} needs bytes ${start} to ${end} of ${file.path}, which has ${file.size}`,
    { hint: 'The data file is truncated, or belongs to another model: fetch it again.' },
  );
}

/** The model's external data files, opened when needed and kept open until `close`. */
export class ExternalFiles {
  private readonly open = new Map<string, FileSource>();

  constructor(private readonly model: Model) {}

  /** @throws OnnxLoraError `external-data`, `file-not-found`, `not-a-file`, `io` */
  source(location: string, tensor?: string): FileSource {
    const known = this.open.get(location);
    if (known) return known;
    const source = new FileSource(resolveLocation(this.model, location, tensor));
    this.open.set(location, source);
    return source;
  }

  /**
   * Opens those that are not open yet, so that `checkWhole` knows their sizes.
   * @throws OnnxLoraError as `source`
   */
  openAll(): void {
    for (const location of externalLocations(this.model)) this.source(location);
  }

  /**
   * Refuses files that have become shorter since they were opened.
   * @throws OnnxLoraError `io`
   */
  checkWhole(): void {
    for (const source of this.open.values()) source.checkWhole();
  }

  /** Closes the files. */
  close(): void {
    for (const source of this.open.values()) source.close();
    this.open.clear();
  }
}
