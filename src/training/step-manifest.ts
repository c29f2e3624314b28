/** What an emitted step graph says of itself, so that any ONNX Runtime can run it. */
import { version } from '../version.js';
import type { ForwardGraph } from './forward.js';
import type { ResolvedOptions } from './options.js';
import type { StepGraph } from './step-graph.js';

/** The metadata key of the manifest. */
export const STEP_MANIFEST_KEY = 'onnx_lora.step';

/** What to feed, what to carry from step to step, and where each trainable tensor stands. */
export function stepGraphManifest(
  forward: ForwardGraph,
  { state, size, loss, gradientNorm }: StepGraph,
  options: ResolvedOptions,
): string {
  const { inputs, lossInputs, parameters, set } = forward;
  const { optimizer, betas, accumulate } = options;
  return JSON.stringify({
    version: 1,
    createdBy: `onnx-lora ${version}`,
    /** Fed anew at each step. */
    data: [...inputs, ...lossInputs],
    /** float32 [size]: feed `input`, and at the next step what came out as `output`; zeros at first, but theta. */
    state: { size, vectors: state },
    scalars: {
      lr: 'float32: the learning rate of the step',
      ...(optimizer === 'adamw'
        ? {
            correction1: `float32: 1 - ${betas[0]}^t, t = 1, 2, … counts updates`,
            correction2: `float32: 1 - ${betas[1]}^t`,
          }
        : {}),
      ...(accumulate > 1
        ? { apply: `bool: whether this batch ends an update, as every ${accumulate}th does` }
        : {}),
    },
    ...(forward.noise > 0
      ? { noise: `float32 [${forward.noise}]: new uniform numbers in [0, 1) at each step` }
      : {}),
    outputs: { loss, gradientNorm },
    /** Stretches of theta; `initial` values are in the model's initializers of the same names. */
    parameters: parameters.map(({ name, shape, offset, length }) => ({
      name,
      shape,
      offset,
      length,
    })),
    adapters: set.adapters.map(({ sites: _, ...record }) => record),
  });
}
