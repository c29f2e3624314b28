/** Writes what an emitted step graph says of itself, so that any ONNX Runtime can run it. */
import { fileMetadata } from '../adapters/files/adapter-file.js';
import { version } from '../version.js';
import type { ForwardGraph } from './forward.js';
import { NOISE } from './layers/dropout.js';
import { scalarsOf } from './optimizers/index.js';
import type { ResolvedOptions } from './options.js';
import { INITIAL_THETA, type StepManifest } from './step-format.js';
import type { StepGraph } from './step-graph.js';

/** The manifest of a step graph, as JSON. */
export function stepGraphManifest(
  forward: ForwardGraph,
  { state, size, loss, gradientNorm, weight }: StepGraph,
  options: ResolvedOptions,
): string {
  const { inputs, lossInputs, parameters, set } = forward;
  const { optimizer, betas, accumulate, lrRatio } = options;
  const manifest: StepManifest = {
    // Only the inputs of accumulated batches are others than in version 1.
    version: accumulate > 1 ? 2 : 1,
    createdBy: `onnx-lora ${version}`,
    data: [...inputs, ...lossInputs],
    state: {
      size,
      vectors: state.map(({ input, output }) => ({
        input,
        output,
        initial: input === 'theta' ? { initializer: INITIAL_THETA } : 0,
      })),
    },
    scalars: {
      lr: 'float32: the learning rate of the step',
      ...Object.fromEntries(
        Object.entries(scalarsOf(options)).map(([name, { meaning }]) => [
          name,
          `float32: ${meaning}`,
        ]),
      ),
      ...(accumulate > 1
        ? {
            accumulated_weight:
              'float32: the sum of the output `weight` over the batches of the update before this one, 0 at its first',
            apply: `bool: whether this batch ends an update, as every ${accumulate}th does`,
          }
        : {}),
    },
    optimizer: { name: optimizer, betas, accumulate, ...(lrRatio === 1 ? {} : { lrRatio }) },
    ...noiseOf(forward),
    outputs: { loss, gradientNorm, weight },
    parameters: parameters.map(({ name, shape, offset, length }) => ({
      name,
      shape,
      offset,
      length,
    })),
    adapters: set.adapters.map(({ sites: _, ...record }) => record),
    adapterFile: adapterFileOf(forward),
  };
  return JSON.stringify(manifest);
}

function noiseOf({ noise: size }: ForwardGraph): Pick<StepManifest, 'noise'> {
  if (size === 0) return {};
  const values = 'float32: new uniform numbers in [0, 1) at each step';
  return { noise: { input: NOISE, size, values } };
}

function adapterFileOf({ set, biases }: ForwardGraph): StepManifest['adapterFile'] {
  const replaced = new Map((set.replaced ?? []).map((one) => [one.tensor, one]));
  const trained = biases.map((tensor) => replaced.get(tensor) ?? { tensor, original: '' });
  const all = [
    ...new Map([...replaced.values(), ...trained].map((one) => [one.tensor, one])).values(),
  ];
  const tensors: Record<string, string> = {};
  const metadata = fileMetadata(all.length > 0 ? { ...set, replaced: all } : set, (name, from) => {
    tensors[name] = from;
    return name;
  });
  return { metadata, tensors };
}
