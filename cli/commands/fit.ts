import { structures } from '../../src/adapters/structure/structure.js';
import type { FitLayer, FitResult } from '../../src/commands/fit.js';
import { fitOptions } from '../../src/commands/options/fit.js';
import { by } from '../adapters.js';
import { defineCommand } from '../command.js';
import { peftLines } from '../peft.js';
import type { Column } from '../table.js';
import { count, measure, plural, printable } from '../text.js';
import type { Ui } from '../ui.js';

export const fitCommand = defineCommand({
  name: 'fit',
  summary: 'what fine-tuning changed in a model, as adapters',
  description:
    'Compares two models of one architecture and fits every changed weight by singular values, block by block: global, diagonal and localized adapters are tried at equal parameters, and each layer gets the one that comes closest. Layers are matched by their place in the graph, whatever their names.',
  positionals: {
    base: { value: 'BASE', summary: 'the model that the adapters are for' },
    tuned: { value: 'TUNED', summary: 'the same model after training' },
  },
  options: fitOptions,
  examples: [
    {
      command: 'onnx-lora fit base.onnx tuned.onnx -o adapter.safetensors --rank 16',
      summary: 'a model that was fine-tuned as a whole, as adapters of its base',
    },
    {
      command:
        'onnx-lora fit base.onnx tuned.onnx -o adapter.safetensors --error 0.2 --include-rest',
      summary:
        'the smallest file that keeps the changes to four fifths, and all others as they are',
    },
  ],
  async run({ base, tuned, ...options }, ui) {
    const { fit } = await import('../../src/commands/fit.js');
    const result = await fit(base, tuned, { ...options, ...ui.work });
    noteRest(result, ui);
    return { result, text: () => textOf(result, ui) };
  },
});

// Fine-tuning of everything changes every bias: more than these are a number, and all in --json.
const NAMED = 5;

function noteRest({ rest }: FitResult, ui: Ui): void {
  for (const { tensor, reason, included } of rest.slice(0, NAMED)) {
    ui.note(`${included ? 'kept as it is' : 'changed, not in the file'}: ${tensor}, ${reason}`);
  }
  if (rest.length > NAMED) ui.note(`  and ${plural(rest.length - NAMED, 'more tensor')}`);
}

function textOf(result: FitResult, ui: Ui): string {
  const { output, format, layers, rest, parameters, error, peft } = result;
  const adapted = layers.filter(({ adapter }) => adapter).length;
  const included = rest.filter((one) => one.included).length;
  const left = rest.length - included;
  const lines = [
    ...(layers.length > 0 ? [ui.table(columnsFor(layers), layers), ''] : []),
    ...(peft ? peftLines(peft, ui) : []),
    `wrote ${printable(output)}: ${plural(adapted, 'adapter')} (${format}), ${count(parameters)} parameters, error ${measure(error)}`,
    ...(included > 0 ? [`with ${plural(included, 'other tensor')} that changed`] : []),
    ...(left > 0
      ? [`without ${plural(left, 'other tensor')} that changed: see --include-rest`]
      : []),
  ];
  return `${lines.join('\n')}\n`;
}

function columnsFor(layers: readonly FitLayer[]): Column<FitLayer>[] {
  const tried = structures.filter((name) =>
    layers.some(({ errors }) => errors.some(({ structure }) => structure === name)),
  );
  return [
    { title: 'module', value: ({ module }) => module, flexible: true },
    { title: '||ΔW||', value: ({ deltaNorm }) => measure(deltaNorm), align: 'right' },
    ...(tried.length > 1 ? tried.map(errorColumn) : []),
    { title: 'choice', value: choiceText },
    {
      title: 'rank',
      value: ({ adapter }) => (adapter ? String(adapter.rank) : '-'),
      align: 'right',
    },
    {
      title: 'params',
      value: ({ adapter }) => count(adapter?.parameters ?? 0),
      align: 'right',
    },
    { title: 'error', value: ({ error }) => measure(error), align: 'right' },
  ];
}

/** The error of a structure at the parameters of the choice, with its best number of blocks. */
function errorColumn(name: (typeof structures)[number]): Column<FitLayer> {
  const value = ({ errors }: FitLayer) => {
    const own = errors.filter(({ structure }) => structure === name);
    return own.length > 0 ? measure(Math.min(...own.map((one) => one.error))) : '-';
  };
  return { title: name, value, align: 'right', optional: true };
}

function choiceText({ adapter }: FitLayer): string {
  if (!adapter) return 'none';
  return adapter.structure === 'global' ? 'global' : `${adapter.structure} ${by(adapter.grid)}`;
}
