/** Options of samples that a loss is computed on: some have an effect on labels of one kind only. */
import { ofRowsAndImages } from '../data/data-kind.js';
import { dataOptions } from '../data/data-options.js';
import type { LabelKind } from '../data/label-kind.js';
import { type Condition, type OptionRules, restricted, varied } from '../options/option.js';
import { oneOf } from '../options/schemas.js';
import { losses, lossNames } from './losses/index.js';

function lossesWith(...kinds: readonly LabelKind[]): readonly string[] {
  return lossNames.filter((name) => kinds.includes(losses[name].labels));
}

function withLabels(...kinds: readonly LabelKind[]): OptionRules {
  return { only: { loss: lossesWith(...kinds) } };
}

const spelling = lossesWith('spelling');

/** Of arrays only those samples may be bad that have too few frames for their labels. */
const mayBeBad: Condition = {
  holds: (options) =>
    spelling.includes(String(options.loss)) ||
    ofRowsAndImages.when.every(({ holds }) => holds(options)),
  otherwise: `on \`data\` that is arrays, but for \`loss\` ${oneOf(spelling)}`,
  remedy: 'give rows or a folder of images',
};

const { labelField, labels, textPairField, textNegativeField, dictionary } = dataOptions;

/** The way samples are read. */
export const lossDataOptions = {
  ...dataOptions,
  skipBadRows: varied(dataOptions.skipBadRows, { when: [mayBeBad] }),
  textPairField: varied(textPairField, { except: { loss: lossesWith('tokens') } }),
  ...restricted({ labelField }, withLabels('classes', 'sets', 'numbers', 'teacher', 'spelling')),
  ...restricted({ labels }, withLabels('classes', 'sets')),
  ...restricted({ textNegativeField }, withLabels('pairs')),
  ...restricted({ dictionary }, withLabels('spelling')),
};
