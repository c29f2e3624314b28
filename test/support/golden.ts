/** PEFT's recorded adapters as ours: put in by hand, through the zoo's answer key. */

import { insertAdapters } from '../../src/adapters/edit/insert.js';
import type { FactorName, NewAdapter } from '../../src/adapters/factors/factors.js';
import { findLayers } from '../../src/adapters/model/layers.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import type { SafetensorsFile } from '../../src/formats/safetensors.js';
import { collect } from '../../src/onnx/edit.js';
import { openModel } from '../../src/onnx/parse.js';
import type { LossName } from '../../src/training/losses/index.js';
import { type ZooMap, zooJson, zooModel, zooTensors } from './zoo.js';

export type Kind = 'lora' | 'gralora';

interface ExpectedModule {
  readonly r: number;
  readonly scale: number;
  readonly alpha: number;
  readonly in_features: number;
  readonly out_features: number;
  readonly k?: number;
  readonly hybrid_r?: number;
}

export interface Expected {
  readonly output: string;
  readonly loss: { readonly kind: string };
  /** The loss of each step before its update. */
  readonly loss_per_step: readonly number[];
  readonly modules: Readonly<Record<string, ExpectedModule>>;
}

/** Our name of a recorded loss. */
export function lossOf(kind: string): LossName {
  const names: Record<string, LossName> = {
    cross_entropy: 'cross-entropy',
    token_cross_entropy: 'cross-entropy',
    causal_lm: 'causal-lm',
    ctc: 'ctc',
    multiple_negatives_ranking: 'mnr',
    mse: 'mse',
  };
  return names[kind]!;
}

/** PEFT's tensor for one of our factors, and whether ours is its transpose. */
const peftNames: Record<Kind, Record<FactorName, readonly [suffix: string, turned: boolean]>> = {
  lora: {
    a: ['lora_A.weight', true],
    b: ['lora_B.weight', true],
    generalA: ['', false],
    generalB: ['', false],
  },
  gralora: {
    a: ['gralora_A', false],
    b: ['gralora_B', false],
    generalA: ['gralora_A_general.weight', true],
    generalB: ['gralora_B_general.weight', true],
  },
};

/** The numbers of one factor, [in, r] and [r, out] where PEFT has [r, in] and [out, r]. */
export function peftFactor(
  file: SafetensorsFile,
  module: string,
  kind: Kind,
  factor: FactorName,
  prefix = '',
): Float64Array {
  const [suffix, turned] = peftNames[kind][factor];
  const key = `${prefix}base_model.model.${module}.${suffix}`;
  const values = file.readFloat64(key);
  const [rows = 1, columns = 1] = file.tensors.get(key)!.shape;
  if (!turned) return values.slice();
  return Float64Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** The bytes of a golden case's model with PEFT's initial adapters. */
export async function goldenModel(name: string, kind: Kind): Promise<Uint8Array> {
  const expected = zooJson<Expected>(name, kind, 'expected.json');
  const map = zooJson<ZooMap>(name, 'map.json');
  const model = openModel(zooModel(name));
  try {
    const patched = new PatchedModel(model);
    const layers = findLayers(patched);
    const adapters = zooTensors([name, kind, 'init', 'adapter_model.safetensors'], (file) =>
      Object.entries(expected.modules).map(([module, e]): NewAdapter => {
        const nodes = map.modules[module]!.nodes.map(({ node }) => node);
        const layer = layers.find(({ nodeNames }) =>
          nodes.every((node) => nodeNames.includes(node)),
        )!;
        const factors: FactorName[] = e.hybrid_r ? ['a', 'b', 'generalA', 'generalB'] : ['a', 'b'];
        const read = (factor: FactorName) => [factor, peftFactor(file, module, kind, factor)];
        const numbers = Object.fromEntries(factors.map(read)) as Record<FactorName, Float64Array>;
        const grid = e.k ? ([e.k, e.k] as const) : ([1, 1] as const);
        return {
          layer,
          record: {
            name: module,
            weight: layer.linear[0]!.weight.name,
            in: e.in_features,
            out: e.out_features,
            structure: e.k ? 'localized' : 'global',
            grid,
            rank: e.r,
            blockRank: e.r / (e.k ?? 1),
            hybridRank: e.hybrid_r ?? 0,
            alpha: e.alpha,
            scaling: 'standard',
            scale: e.scale,
          },
          values: (factor) => numbers[factor]!,
        };
      }),
    );
    return await collect(insertAdapters(patched, 'default', adapters).edit.pieces());
  } finally {
    model.close();
  }
}
