/**
 * Names of external data files beside an output. A model is not trusted with them: what is copied or made
 * gets names of ours, after the output's. They are not those that the model in the output's place refers
 * to, so that it stays whole until the new one takes its place.
 */
import { readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { removeStale } from '../onnx/temporary.js';
import { locationsIn } from './inputs.js';

export class DataNames {
  private readonly taken: Set<string>;
  private readonly old: ReadonlySet<string>;

  /**
   * @param kept locations in the output's folder that the new model goes on referring to
   * @param style how data files are called
   */
  constructor(
    private readonly output: string,
    kept: readonly string[],
    private readonly style: DataStyle = 'data',
  ) {
    this.taken = new Set(kept.map(normalize));
    this.old = locationsOf(output);
  }

  /**
   * The next free name.
   * @param isWanted takes a name although the old model refers to it
   */
  next(isWanted: (path: string) => boolean = () => false): string {
    for (let i = 0; ; i++) {
      const name = styles[this.style](basename(this.output), i);
      if (this.taken.has(name)) continue;
      if (this.old.has(name) && !isWanted(this.pathOf(name))) continue;
      this.taken.add(name);
      return name;
    }
  }

  /** Takes a name that is not one of ours, unless it is taken. */
  take(name: string): boolean {
    const normal = normalize(name);
    if (this.taken.has(normal)) return false;
    this.taken.add(normal);
    return true;
  }

  pathOf(name: string): string {
    return join(dirname(this.output), name);
  }

  /**
   * Removes the files of ours that only the model refers to which was in the output's place before, and
   * what killed runs left of such files.
   */
  removeOld(): void {
    for (let i = 0; i <= this.taken.size + this.old.size; i++) {
      for (const nameOf of Object.values(styles)) {
        removeStale(this.pathOf(nameOf(basename(this.output), i)));
      }
    }
    const left = [...this.old].filter((name) => isOurs(this.output, name) && !this.taken.has(name));
    if (left.length === 0) return;
    const used = usedInFolder(dirname(this.output));
    for (const name of left) if (!used.has(name)) rmSync(this.pathOf(name), { force: true });
  }
}

/** Names of data files: ours, or those of optimum, which transformers.js looks for. */
type DataStyle = 'data' | 'chunks';

const styles: Readonly<Record<DataStyle, (model: string, index: number) => string>> = {
  // `model.onnx.data`, `1.model.onnx.data`, …
  data: (model, index) => (index === 0 ? `${model}.data` : `${index}.${model}.data`),
  // `model.onnx_data`, `model.onnx_data_1`, …
  chunks: (model, index) => (index === 0 ? `${model}_data` : `${model}_data_${index}`),
};

/** The style that a model's own data files have. */
export function styleOf(locations: readonly string[]): DataStyle {
  return locations.some((name) => /\.onnx_data(_\d+)?$/.test(name)) ? 'chunks' : 'data';
}

function isOurs(output: string, name: string): boolean {
  const index = Number(/^(\d+)\.|_(\d+)$/.exec(name)?.slice(1).find(Boolean) ?? 0);
  return Object.values(styles).some((nameOf) => nameOf(basename(output), index) === name);
}

/** The files that a model refers to; nothing for what is not a model. */
function locationsOf(path: string): Set<string> {
  try {
    return new Set(locationsIn(path).map(normalize));
  } catch (error) {
    if (error instanceof OnnxLoraError) return new Set();
    throw error;
  }
}

/** The files that all models of a folder refer to. */
function usedInFolder(folder: string): Set<string> {
  const models = readdirSync(folder).filter((name) => /\.onnx$/i.test(name));
  return new Set(models.flatMap((name) => [...locationsOf(join(folder, name))]));
}
