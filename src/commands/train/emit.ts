/** The training step as a file, for other programs to run. */
import type { Dataset } from '../../data/dataset.js';
import { writeFiles } from '../../onnx/write.js';
import { INITIAL_THETA, STEP_MANIFEST_KEY } from '../../training/step-format.js';
import { stepGraphManifest } from '../../training/step-manifest.js';
import type { RunContext } from './context.js';
import { runInputs } from './outputs.js';
import type { TrainResult } from './result.js';
import { buildPortableStep } from './step.js';

/** @throws OnnxLoraError those of building the step and of writing, `verification` */
export async function emitStep(context: RunContext, data: Dataset): Promise<TrainResult> {
  const { options, output, patched } = context;
  const built = await buildPortableStep(context, data);
  const guard = await context.guard(built, 'cpu');
  const { forward, graph: step } = built;
  const initial = step.graph.fresh(INITIAL_THETA);
  const manifest = stepGraphManifest(forward, step, options, initial);
  step.graph.addInitializer({
    name: initial,
    dtype: 'float32',
    dims: [step.size],
    data: new Uint8Array(context.theta(forward, step.size).buffer),
  });
  const pieces = step.graph.modelPieces({ [STEP_MANIFEST_KEY]: manifest });
  await writeFiles([{ path: output, pieces }], runInputs(patched.model, options), options);
  return { output, steps: 0, ...(guard ? { guard } : {}), ...context.cost() };
}
