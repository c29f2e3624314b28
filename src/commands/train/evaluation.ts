/** The evaluation of `evalData` during a run. */
import type { Dataset } from '../../data/dataset.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import type { Batches } from '../../training/batches.js';
import { Evaluator } from '../../training/evaluator.js';
import type { GuardReport } from '../../training/guard/guard.js';
import { sizeOf } from '../../training/parameters.js';
import type { RunContext } from './context.js';

export interface Evaluation {
  /** Released by the caller. */
  readonly evaluator: Evaluator;
  readonly batches: Batches;
  readonly data: Dataset;
  readonly guard: GuardReport | undefined;
}

/**
 * @param trained the data of the run, whose classes those of `evalData` have to be
 * @returns undefined where nothing is evaluated
 * @throws OnnxLoraError those of checking the data, `verification`, `runtime`, `provider`
 */
export async function openEvaluation(
  context: RunContext,
  trained: Dataset,
  provider: ProviderName,
): Promise<Evaluation | undefined> {
  const { evalData, threads } = context.options;
  if (evalData === undefined) return undefined;
  const data = await context.openData(evalData, trained.classes);
  const forward = await context.forward(data, provider);
  const batches = await context.batches(data, forward, false);
  const graph = { graph: forward.graph, size: sizeOf(forward.parameters) };
  const guard = await context.guard({ forward, graph, batches }, provider);
  const optimization = guard?.optimization;
  const options = { provider, threads, optimization };
  const evaluator = await Evaluator.open(context.patched.model, forward, options);
  return { evaluator, batches, data, guard };
}
