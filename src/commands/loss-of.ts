/** The loss of a model on the samples that a command was given for it. */
import { pickOptions } from '../options/resolve.js';
import { evaluate } from './evaluate.js';
import { type EvaluateOptions, evalOptions } from './options/eval.js';

/** Options of a command that may have samples. */
type Given = { readonly [K in keyof EvaluateOptions]?: EvaluateOptions[K] | undefined };

/** @throws OnnxLoraError those of `evaluate` */
export async function lossOf(path: string, given: Given): Promise<number> {
  const options = pickOptions(evalOptions, { provider: 'cpu', ...given } as EvaluateOptions);
  return (await evaluate(path, options)).loss;
}
