/** Writes what an emitted step graph says of itself, so that any ONNX Runtime can run it. */
import { fileMetadata } from '../adapters/files/adapter-file.js';
import { version } from '../version.js';
import type { ForwardGraph } from './forward.js';
import { nameIn } from './input-names.js';
import { recordedOptions, scalarsOf } from './optimizers/index.js';
import type { RunOptions } from './run-options.js';
import type { StepManifest } from './step-format.js';
import type { StepGraph } from './step-graph.js';

/**
 * The manifest of a step graph, as JSON.
 * @param initial the initializer with the adapters as they are before the first step
 */
export function stepGraphManifest(
  forward: ForwardGraph,
  step: StepGraph,
  options: RunOptions,
  initial: string,
): string {
  const { inputs, lossInputs, parameters, set, renamed } = forward;
  const { optimizer, accumulate, lrRatio } = options;
  const { betas } = recordedOptions(options);
  const { size, loss, gradientNorm, weight } = step;
  const others = othersIn(forward, step);
  const manifest: StepManifest = {
    version: versionOf(options, others),
    createdBy: `onnx-lora ${version}`,
    data: [...inputs, ...lossInputs.map((one) => ({ ...one, name: nameIn(renamed, one.name) }))],
    state: {
      size,
      vectors: step.state.map(({ name, input, output }) => ({
        input,
        output,
        initial: name === 'theta' ? { initializer: initial } : 0,
      })),
    },
    scalars: scalarTexts(step, options),
    ...(Object.keys(others).length > 0 ? { renamed: others } : {}),
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

/** Graphs are of the oldest version that has what they need, for trainers that know no newer one. */
function versionOf({ accumulate }: RunOptions, renamed: object): StepManifest['version'] {
  if (Object.keys(renamed).length > 0) return 3;
  return accumulate > 1 ? 2 : 1;
}

/** Inputs that are not called what they are, because the model has a value of that name. */
function othersIn({ renamed, noise }: ForwardGraph, { inputs }: StepGraph): Record<string, string> {
  const ours = [...Object.entries(inputs), ...renamed];
  const all = noise ? [...ours, ['noise', noise.input] as const] : ours;
  const different = all.filter(([name, input]) => name !== input);
  return Object.fromEntries(different.map(([name, input]) => [input, name]));
}

function scalarTexts({ inputs }: StepGraph, options: RunOptions): Record<string, string> {
  const { accumulate } = options;
  const own = Object.entries(scalarsOf(options));
  const texts: Record<string, string> = {
    lr: 'float32: the learning rate of the step',
    ...Object.fromEntries(own.map(([name, { meaning }]) => [name, `float32: ${meaning}`])),
    accumulated_weight:
      'float32: the sum of the output `weight` over the batches of the update before this one, 0 at its first',
    apply: `bool: whether this batch ends an update, as every ${accumulate}th does`,
  };
  const fed = Object.entries(texts).filter(([name]) => name in inputs);
  return Object.fromEntries(fed.map(([name, text]) => [inputs[name]!, text]));
}

function noiseOf({ noise }: ForwardGraph): Pick<StepManifest, 'noise'> {
  if (!noise) return {};
  const values = 'float32: new uniform numbers in [0, 1) at each step';
  return { noise: { ...noise, values } };
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
