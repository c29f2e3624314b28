/** Which labels samples have: all that this room knows of a loss. */

import { handler, type OptionsOf } from '../options/option.js';
import { choice, text } from '../options/schemas.js';

/**
 * - `classes`: one class a row or position, as `labels`
 * - `sets`: any number of classes a row, as answers from 0 to 1
 * - `numbers`: a number or a list of them a row, as `target`
 * - `teacher`: the outputs of another model, as `teacher`
 * - `spelling`: a text a row, spelled over frames: `labels`, `label_lengths` and `input_lengths`
 * - `tokens`: the text itself, each of whose tokens is the label of those before
 * - `pairs`: none; samples are pairs or triples of rows that are compared
 */
export type LabelKind =
  | 'classes'
  | 'sets'
  | 'numbers'
  | 'teacher'
  | 'spelling'
  | 'tokens'
  | 'pairs';

const labelKinds: readonly LabelKind[] = [
  'classes',
  'sets',
  'numbers',
  'teacher',
  'spelling',
  'tokens',
  'pairs',
];

export const labelOptions = {
  /** The kind of labels that are wanted. */
  labelKind: handler(choice(labelKinds), { required: true }),
  /** Subject of a message, for example `the loss ctc`. */
  wantedBy: handler(text),
};

/** Labels that are asked for. */
export interface LabelRequest extends OptionsOf<typeof labelOptions> {}

/** The subject of a message about labels that do not fit. */
export function askerOf({ wantedBy = 'the loss' }: LabelRequest): string {
  return wantedBy;
}
