import type { ValueSpec } from '../../graph/builder.js';
import { language } from '../metrics/language.js';
import { classOptions, smoothingOption } from './class-options.js';
import { meanCrossEntropy } from './cross-entropy.js';
import type { Loss } from './loss.js';
import { cast } from './operators.js';

/** Whether texts of more than one token go in. */
function mayBeLonger({ name, shape }: ValueSpec): boolean {
  return ['input_ids', 'inputs_embeds'].includes(name) && shape?.[1] !== 1;
}

/** Builders for generation cut the rows of a prompt off in front of the head. */
function onlyTheLast(name: string) {
  return {
    problem: `the output ${name} holds the logits of the last token only, [batch, 1, vocabulary]; the loss causal-lm predicts every token from the one before`,
    hint: "Export the model with the logits of all tokens: without prune_lm_head in onnxruntime-genai's model builder.",
  };
}

/**
 * Cross-entropy of logits[:, :-1] against labels[:, 1:]: each position predicts the next label. The
 * labels are shifted, not the logits, which are the step's largest tensor: the last position gets a
 * label that is ignored.
 */
export const causalLm = {
  name: 'causal-lm',
  summary: 'the next token of a text',
  labels: 'tokens',
  measures: 'perplexity',
  metric: language,
  options: classOptions,
  trainOptions: smoothingOption,
  takes: '[batch, length, vocabulary]',
  ranks: [3, 3],
  contains: 'Softmax',
  unfit: ({ name, shape }, inputs) =>
    shape?.[1] === 1 && inputs.some(mayBeLonger) ? onlyTheLast(name) : undefined,
  add(graph, logits, addInput, options) {
    const labels = addInput('labels', 'int64', logits.shape?.slice(0, -1) ?? null);
    // A pad of -1 takes the first column off.
    const shifted = graph.op('Pad', [
      cast(graph, labels, 'int32'),
      graph.integers([0, -1, 0, 1]),
      graph.scalar('int32', options.ignoreIndex),
    ]);
    return meanCrossEntropy(graph, logits, shifted, options);
  },
} as const satisfies Loss<typeof classOptions, typeof smoothingOption>;
