/** What an emitted step graph says of itself, so that any ONNX Runtime can run it. */
import { version } from '../version.js';
import type { ForwardGraph } from './forward.js';
import type { ResolvedOptions } from './options.js';
import type { StepGraph } from './step-graph.js';

/** The metadata key of the manifest. */
export const STEP_MANIFEST_KEY = 'onnx_lora.step';

/** The initializer with the adapters as they are before the first step; nothing in the graph reads it. */
export const INITIAL_THETA = 'theta_initial';

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
    /** float32 [size]: feed `initial`, and at the next step what came out as `output`. */
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
    /** Stretches of theta, by the names of the patched model's initializers. */
    parameters: parameters.map(({ name, shape, offset, length }) => ({
      name,
      shape,
      offset,
      length,
    })),
    adapters: set.adapters.map(({ sites: _, ...record }) => record),
  });
}
