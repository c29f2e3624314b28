/** The largest number of tokens of a text. */
import { OnnxLoraError } from '../../errors.js';
import type { DataRequest } from '../request.js';
import type { TextInputs } from './inputs.js';
import { DEFAULT_MAX_LENGTH } from './options.js';
import type { TextTokenizer } from './tokenizer.js';

/**
 * The most tokens of a text, special ones included: what is asked for, else what the model's inputs
 * have room for, else what the tokenizer says, else `DEFAULT_MAX_LENGTH`.
 * @throws OnnxLoraError `invalid-argument` for more than the model takes, or too few for a token of text
 */
export function lengthLimit(
  tokenizer: TextTokenizer,
  { length: fixed }: TextInputs,
  { maxLength, textPairField, positions, onNote }: DataRequest,
): number {
  if (maxLength !== undefined && fixed !== undefined && maxLength > fixed) {
    throw invalid(`max length is ${maxLength}, the model takes ${fixed} tokens`);
  }
  const known = maxLength ?? fixed ?? least(tokenizer.maxLength, positions);
  if (known === undefined)
    onNote?.(`texts are cut to ${DEFAULT_MAX_LENGTH} tokens: see \`maxLength\``);
  const limit = known ?? DEFAULT_MAX_LENGTH;
  const specials = tokenizer.specials(textPairField !== undefined);
  if (Number.isInteger(limit) && limit > specials) return limit;
  throw invalid(
    `max length is ${limit}, expected more than the ${specials} special tokens of a text`,
  );
}

function least(...limits: readonly (number | undefined)[]): number | undefined {
  const known = limits.filter((limit) => limit !== undefined);
  return known.length > 0 ? Math.min(...known) : undefined;
}

function invalid(message: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint: 'Set it with `maxLength`.' });
}
