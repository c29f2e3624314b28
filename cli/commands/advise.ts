import type { AdvisedScore, AdvisedTarget, AdviseResult } from '../../src/commands/advise.js';
import { adviseOptions } from '../../src/commands/options/advise.js';
import type { Grid } from '../../src/fitting/fit/candidates.js';
import { varied } from '../../src/options/option.js';
import { by, skippedLines } from '../adapters.js';
import { defineCommand } from '../command.js';
import { verboseOption } from '../common-options.js';
import { kebabCase } from '../specs.js';
import type { Column } from '../table.js';
import { count, measure, plural, printable } from '../text.js';
import type { Ui } from '../ui.js';
import { guardLines } from '../verification.js';

export const adviseCommand = defineCommand({
  name: 'advise',
  summary: 'which structure, grid and rank each layer should get',
  description:
    'Measures how well global, diagonal and localized adapters can say what is known of the changes, at equal parameters: the changes themselves with --tuned, the gradient with --data, else the weights, which are little to go by. Prints the patch command that follows.',
  positionals: { model: { value: 'MODEL', summary: 'the model, without adapters' } },
  options: {
    ...adviseOptions,
    verbose: varied(verboseOption.verbose, {
      summary:
        'list every skipped node with its reason, and what the comparison with the file found',
    }),
  },
  examples: [
    {
      command: 'onnx-lora advise model.onnx --data samples.safetensors --loss cross-entropy',
      summary: 'from where the loss pulls the weights on your data',
    },
    {
      command:
        'onnx-lora advise base.onnx --tuned tuned.onnx --budget 500000 --write-config lora.json',
      summary:
        'from what fine-tuning changed, with ranks; then: patch base.onnx --config lora.json',
    },
  ],
  async run({ model, verbose, ...options }, ui) {
    const { advise } = await import('../../src/commands/advise.js');
    const result = await advise(model, { ...options, ...ui.work, onNote: ui.note });
    return { result, text: () => textOf(result, verbose ?? false, ui) };
  },
});

function textOf(result: AdviseResult, verbose: boolean, ui: Ui): string {
  const { layers, skipped, guard, config } = result;
  const lines = [
    ui.table(columnsFor(layers), layers),
    '',
    ...skippedLines(skipped, verbose),
    ...(verbose ? guardLines(guard) : []),
    ...basisLines(result),
    verdictLine(result),
    `${plural(layers.filter(({ choice }) => choice.rank > 0).length, 'adapter')}, ${count(result.parameters)} parameters`,
    '',
    ...(config === undefined ? [] : [`wrote ${printable(config)}`]),
    printable(patchCommandFor(result)),
  ];
  return `${lines.join('\n')}\n`;
}

function columnsFor(layers: readonly AdvisedTarget[]): Column<AdvisedTarget>[] {
  const measured = (['global', 'diagonal', 'localized'] as const).filter((name) =>
    layers.some(({ scores }) => scores.some(({ structure }) => structure === name)),
  );
  return [
    { title: 'module', value: ({ module }) => module, flexible: true },
    { title: 'in x out', value: ({ shape }) => by(shape), align: 'right' },
    { title: 'norm', value: ({ norm }) => measure(norm), align: 'right', optional: true },
    ...measured.map(errorColumn),
    { title: 'choice', value: ({ choice }) => (choice.rank > 0 ? nameOf(choice) : 'none') },
    { title: 'rank', value: ({ choice }) => String(choice.rank), align: 'right' },
    { title: 'sure', value: ({ choice }) => (choice.verdict === 'clear' ? 'yes' : 'no') },
  ];
}

/** The lowest error that a structure has on any grid. */
function errorColumn(name: AdvisedScore['structure']): Column<AdvisedTarget> {
  const value = ({ scores }: AdvisedTarget) => {
    const errors = scores.filter(({ structure }) => structure === name).map(({ error }) => error);
    return errors.length > 0 ? Math.min(...errors).toFixed(3) : '-';
  };
  return { title: name, value, align: 'right' };
}

/** `localized 4 x 4` */
function nameOf({ structure, blocks }: Grid): string {
  return structure === 'global' ? structure : `${structure} ${by([blocks, blocks])}`;
}

function basisLines({ basis, layers }: AdviseResult): string[] {
  const rank = layers[0]!.rank;
  const what = `Columns global to localized: the error of each structure's best grid at the parameters of rank ${rank}.`;
  if (basis === 'tuned') return [what, 'Based on what the tuned model changed.'];
  if (basis === 'weights') {
    return [
      what,
      'Based on the weights alone, which say little about how training will change them: give --data and --loss, or --tuned.',
    ];
  }
  const known = layers.flatMap(({ agreement }) => agreement ?? []);
  if (known.length === 0)
    return [what, 'Based on the gradient on one batch: how sure it is cannot be told.'];
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  return [
    what,
    `Based on the gradient on the data: fitted to one half of the batches, measured on the other. The halves agree to a cosine of ${mean.toFixed(2)}${mean < UNSURE ? ': more --batches would tell more' : ''}.`,
    'That is what adapters can say of it, not how well they train: compare with eval.',
  ];
}

// Below this most of the gradient is the noise of its batches.
const UNSURE = 0.5;

function verdictLine({ overall }: AdviseResult): string {
  const other = overall.runnerUp ? nameOf(overall.runnerUp) : undefined;
  if (!other) return `Over all layers: ${nameOf(overall)}, the only one that fits their sizes.`;
  return overall.verdict === 'clear'
    ? `Over all layers: ${nameOf(overall)}, clearly better than ${other}.`
    : `Over all layers: no clear winner between ${nameOf(overall)} and ${other}.`;
}

// More patterns than this are a file's business.
const MAX_PATTERNS = 8;

function patchCommandFor({ model, patch, config }: AdviseResult): string {
  if (config !== undefined) return `onnx-lora patch ${quoted(model)} --config ${quoted(config)}`;
  const options = Object.entries(patch).flatMap(([key, value]) =>
    [value].flat().map((one) => `--${kebabCase(key)} ${quoted(String(one))}`),
  );
  if (options.length <= MAX_PATTERNS)
    return `onnx-lora patch ${quoted(model)} ${options.join(' ')}`;
  return 'The options for patch are many: write them to a file with --write-config FILE.';
}

/** As a shell reads it. */
function quoted(text: string): string {
  return /^[\w./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
