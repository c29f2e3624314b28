/** The state that a run starts from: the file's adapters, or a checkpoint. */
import { OnnxLoraError } from '../../errors.js';
import type { TensorValue } from '../../runtime/tensor-value.js';
import {
  type Checkpoint,
  checkSettings,
  hasCheckpoint,
  readCheckpoint,
  type Settings,
} from '../../training/checkpoint.js';
import type { StepGraph } from '../../training/step-graph.js';
import type { ResolvedTrainOptions } from '../options/train.js';
import type { RunContext } from './context.js';
import type { Step } from './step.js';

/**
 * The checkpoint to go on from, if that was asked for.
 * @throws OnnxLoraError `output-exists` where the folder has another run's, `checkpoint`
 */
export function checkpointToResume(
  { checkpoint: folder, resume, force, onNote }: ResolvedTrainOptions,
  graph: StepGraph,
  settings: Settings,
): Checkpoint | undefined {
  if (folder === undefined) return undefined;
  if (!hasCheckpoint(folder)) {
    if (resume) onNote(`${folder} holds no checkpoint yet: starting from the beginning`);
    return undefined;
  }
  if (!resume && !force) {
    throw new OnnxLoraError('output-exists', `${folder} holds the checkpoint of another run`, {
      hint: 'Go on from it with `resume: true`, start anew with `force: true`, or name another folder.',
    });
  }
  if (!resume) return undefined;
  const names = graph.state.map(({ name }) => name);
  const checkpoint = readCheckpoint(folder, names, graph.size);
  const changes = checkSettings(folder, checkpoint.progress.settings, settings, force);
  onNote(`resuming from step ${checkpoint.progress.step}`);
  for (const change of changes) onNote(`with another setting than before: ${change}`);
  return checkpoint;
}

/** The state before the first step of this run, by the inputs of the graph. */
export function initialState(
  context: RunContext,
  { forward, graph }: Pick<Step, 'forward' | 'graph'>,
  checkpoint: Checkpoint | undefined,
): Map<string, TensorValue> {
  const { state, size } = graph;
  const vectorOf = (name: string) => {
    if (checkpoint) return checkpoint.vectors.get(name)!;
    return name === 'theta' ? context.theta(forward, size) : new Float32Array(size);
  };
  const value = (data: Float32Array) => ({ dtype: 'float32', dims: [size], data }) as const;
  return new Map(state.map(({ name, input }) => [input, value(vectorOf(name))]));
}
