/** Adapters with numbers of the test's choice, inserted into models. */

import { plannedOptions } from '../../src/adapters/edit/adapter-options.js';
import { type Extras, insertAdapters } from '../../src/adapters/edit/insert.js';
import { type AdapterOptions, planAdapters } from '../../src/adapters/edit/new-adapters.js';
import type { FactorName, NewAdapter } from '../../src/adapters/factors/factors.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { shapeOfA, shapeOfB, structureOf } from '../../src/adapters/structure/structure.js';
import { chooseLayers } from '../../src/commands/chosen-layers.js';
import { writeModel } from '../../src/commands/output.js';
import { collect, type MessageEdit } from '../../src/onnx/edit.js';
import type { Model } from '../../src/onnx/model.js';
import { openModel, parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { pickOptions } from '../../src/options/resolve.js';

/** Numbers in ±`scale`, the same for the same seed. */
export function randomNumbers(seed: number, count: number, scale = 1): Float64Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const next = () => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float64Array.from({ length: count }, () => (2 * next() - 1) * scale);
}

/** How many numbers a factor of an adapter has. */
export function factorSize(record: NewAdapter['record'], factor: FactorName): number {
  const structure = structureOf(record);
  const count = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);
  if (factor === 'a') return count(shapeOfA(structure));
  if (factor === 'b') return count(shapeOfB(structure));
  return structure.hybridRank * (factor === 'generalA' ? structure.in : structure.out);
}

/** Random factors, B as well, so that the adapter has an effect. */
export function trained(adapters: readonly NewAdapter[], seed = 1, scale = 0.3): NewAdapter[] {
  return adapters.map((adapter, i) => ({
    ...adapter,
    values: (factor) =>
      randomNumbers(
        seed * 1000 + i * 10 + ['a', 'b', 'generalA', 'generalB'].indexOf(factor),
        factorSize(adapter.record, factor),
        scale,
      ),
  }));
}

export interface InsertOptions extends AdapterOptions {
  readonly name?: string;
  /** Makes the adapters' numbers; default is the start of a fresh patch. */
  readonly factors?: (adapters: readonly NewAdapter[]) => NewAdapter[];
  /** What comes with the adapters. */
  readonly extras?: Extras;
}

/** The edit that inserts adapters, on the model that it was planned for. */
function insertion(opened: Model, options: InsertOptions): MessageEdit {
  const patched = new PatchedModel(opened);
  const { layers } = chooseLayers(patched, options);
  const planned = planAdapters(layers, pickOptions(plannedOptions, options));
  const adapters = options.factors?.(planned) ?? planned;
  return insertAdapters(patched, options.name ?? 'default', adapters, options.extras).edit;
}

/** The bytes of the patched model, for a model in memory or at a path. */
export async function insertInto(
  model: Uint8Array | string,
  options: InsertOptions = {},
): Promise<Uint8Array> {
  const opened = typeof model === 'string' ? openModel(model) : parseModel(new MemorySource(model));
  try {
    return await collect(insertion(opened, options).pieces());
  } finally {
    opened.close();
  }
}

/** As `patch`, with numbers of the test's choice. */
export async function patchFile(
  path: string,
  output: string,
  options: InsertOptions = {},
): Promise<void> {
  const opened = openModel(path);
  try {
    await writeModel(opened, insertion(opened, options), output, {});
  } finally {
    opened.close();
  }
}
