import type { AdapterSummary } from '../../src/adapters/kinds/summary.js';
import { inspectOptions } from '../../src/commands/options/inspect.js';
import { option } from '../../src/options/option.js';
import { toggle } from '../../src/options/schemas.js';
import type {
  InspectedSet,
  InspectedSlots,
  InspectedTarget,
  InspectedValue,
  InspectResult,
} from '../../src/report/inspection.js';
import { by, rankText } from '../adapters.js';
import { defineCommand } from '../command.js';
import { forPeople } from '../common-options.js';
import type { Column } from '../table.js';
import { bytes, count, measure, percent, plural, printable, wrap } from '../text.js';
import type { Ui } from '../ui.js';

export const inspectCommand = defineCommand({
  name: 'inspect',
  summary: 'what is in a model, and what can take an adapter',
  positionals: { model: { value: 'MODEL', summary: 'the model: an .onnx file, or its folder' } },
  options: {
    ...inspectOptions,
    why: option(toggle, {
      group: 'Output',
      summary: 'list every layer with the reason why it can take an adapter or not',
      example: '--why | less',
      ...forPeople,
    }),
  },
  examples: [
    { command: 'onnx-lora inspect model.onnx', summary: 'the layers that can take an adapter' },
    {
      command: 'onnx-lora inspect model.lora.onnx --html report.html',
      summary: 'a page to look at, with the norm of each block',
    },
  ],
  async run({ model, why, ...options }, ui) {
    const { inspect } = await import('../../src/commands/inspect.js');
    const result = await inspect(model, { ...options, ...ui.work, onNote: ui.note });
    const text = () => {
      const parts = [modelLines(result), why ? reasonLines(result, ui) : layerLines(result, ui)];
      const page = options.html === undefined ? [] : [`wrote ${printable(options.html)}`];
      return `${[...parts.flatMap((lines) => [...lines, '']), ...exportedLines(result), ...summaryLines(result, ui), ...page].join('\n')}\n`;
    };
    return { result, text };
  },
});

function modelLines(result: InspectResult): string[] {
  const { model, outputs, sets, slots } = result;
  const opsets = model.opsets.map(({ domain, version }) => `${domain} ${version}`).join(', ');
  const facts: [string, string][] = [
    ['model', `${model.path}, ${bytes(model.bytes)}, ${count(model.parameters)} parameters`],
    ['format', `IR ${model.irVersion}, opset ${opsets}`],
    ['producer', model.producer || 'unknown'],
    ...model.externalData.map(({ location, bytes: size }): [string, string] => [
      'data',
      `${location}, ${size === null ? 'missing' : bytes(size)}`,
    ]),
    ...modelInputs(result).map((value): [string, string] => ['input', valueText(value)]),
    ...outputs.map((value): [string, string] => ['output', valueText(value)]),
    ...sets.flatMap(setFacts),
    ...(slots ? [slotFact(slots)] : []),
  ];
  return facts.map(([name, value]) => `${name.padEnd(8)}  ${printable(value)}`);
}

/** The inputs without those of slots, which are two for each. */
function modelInputs({ inputs, slots }: InspectResult): readonly InspectedValue[] {
  const own = new Set(slots?.slots.flatMap(({ a, b }) => [a, b]));
  return inputs.filter(({ name }) => !own.has(name));
}

function slotFact({ mode, slots, createdBy }: InspectedSlots): [string, string] {
  return ['slots', `${count(slots.length)}, two ${mode} inputs each, by ${createdBy}`];
}

function setFacts({ name, adapters, parameters, head, replaced, createdBy }: InspectedSet) {
  const facts: [string, string][] = [
    [
      'adapters',
      `${name}: ${count(adapters)} with ${count(parameters)} parameters, by ${createdBy}`,
    ],
  ];
  if (head) {
    const { classes, pooling, input, output } = head;
    const text = `${output} of ${count(classes)} classes on ${input} (${pooling})`;
    facts.push(['head', `${name}: ${text}, ${count(head.parameters)} parameters`]);
  }
  if (replaced.length > 0) {
    facts.push(['replaced', `${name}: ${plural(replaced.length, 'tensor')} of the model`]);
  }
  return facts;
}

function valueText({ name, type, shape }: InspectedValue): string {
  const dims = shape?.map((dim) => dim ?? '?').join(', ');
  return `${name}: ${type} ${dims === undefined ? 'of any shape' : `[${dims}]`}`;
}

/** A layer with one of its adapters, if it has any. */
interface Row {
  readonly target: InspectedTarget;
  readonly adapter: AdapterSummary | undefined;
}

function layerLines({ model, targets, sets, slots }: InspectResult, ui: Ui): string[] {
  const eligible = targets.filter((target) => target.eligible);
  if (eligible.length === 0) return ['no layer can take an adapter (--why says why)'];
  const rows = eligible.flatMap((target): Row[] =>
    target.adapters.length === 0
      ? [{ target, adapter: undefined }]
      : target.adapters.map((adapter) => ({ target, adapter })),
  );
  const share = (part: number) =>
    percent(model.parameters === 0 ? 0 : (100 * part) / model.parameters);
  const columns = [
    ...weightColumns(),
    ...(slots ? [slotColumn] : []),
    ...(sets.length === 0 ? sizeColumns(share) : adapterColumns(share, rows, sets.length > 1)),
  ];
  return [ui.table(columns, rows)];
}

/** The module of a part of a layer is its adapter's. */
function weightColumns(): Column<Row>[] {
  const part = ({ adapter }: Row) => (adapter?.part ? adapter : undefined);
  const shapeOf = (row: Row) => part(row)?.shape ?? row.target.weight!.shape;
  return [
    { title: 'module', value: (row) => part(row)?.name ?? row.target.module, flexible: true },
    { title: 'op', value: ({ target }) => target.op.replace(/^.*:/, ''), optional: true },
    { title: 'in x out', value: (row) => by(shapeOf(row)), align: 'right' },
    { title: 'dtype', value: ({ target }) => target.weight!.dtype, optional: true },
  ];
}

const slotColumn: Column<Row> = {
  title: 'slot',
  value: ({ target }) => (target.slot === null ? '-' : 'yes'),
};

function sizeColumns(share: (part: number) => string): Column<Row>[] {
  const size = ({ target }: Row) => target.weight!.shape[0] * target.weight!.shape[1];
  return [
    { title: 'weights', value: (row) => count(size(row)), align: 'right' },
    { title: 'share', value: (row) => share(size(row)), align: 'right' },
  ];
}

function adapterColumns(
  share: (part: number) => string,
  rows: readonly Row[],
  withSet: boolean,
): Column<Row>[] {
  const hasKinds = rows.some(({ adapter }) => adapter && adapter.kind !== 'lora');
  const column = (title: string, value: (adapter: AdapterSummary) => string): Column<Row> => ({
    title,
    value: ({ adapter }) => (adapter ? value(adapter) : '-'),
    align: 'right',
  });
  return [
    ...(withSet ? [column('set', ({ set }) => set)] : []),
    ...(hasKinds ? [column('kind', ({ kind }) => kind)] : []),
    column('grid', ({ grid }) => by(grid)),
    column('rank', rankText),
    column('params', ({ parameters }) => count(parameters)),
    column('share', ({ parameters }) => share(parameters)),
    column('|ΔW|', ({ norm }) => measure(norm)),
  ];
}

// A reason is a sentence: cut short it says nothing, so it gets lines of its own.
function reasonLines({ targets }: InspectResult, ui: Ui): string[] {
  return targets.flatMap(({ eligible, module, node, op, reason }) => {
    const mark = eligible ? ui.colors.green('yes') : ui.colors.red('no ');
    const details = printable(`${op} ${node}: ${reason}`);
    const lines = ui.width === undefined ? [details] : wrap(details, ui.width - 5);
    return [`${mark}  ${printable(module)}`, ...lines.map((line) => `     ${line}`)];
  });
}

function exportedLines({ exportedAdapters: [first, ...others] = [] }: InspectResult): string[] {
  if (first === undefined) return [];
  const where = printable(others.length > 0 ? `${first} and others` : first);
  const adapters = plural(others.length + 1, 'adapter');
  return [`${adapters} of the exporter stay as they are: beside ${where}`];
}

function summaryLines({ summary, targets: layers, slots }: InspectResult, ui: Ui): string[] {
  const { targets, eligible, adapted, adapterParameters, percent: share } = summary;
  const able = `${count(eligible)} of ${plural(targets, 'layer')} can take an adapter`;
  if (slots) {
    const slotted = layers.filter(({ slot }) => slot !== null).length;
    return [`${able}, ${count(slotted)} ${slotted === 1 ? 'has' : 'have'} a slot`];
  }
  if (adapted === 0) return [`${able}, none has one`];
  const have = `${count(adapted)} ${adapted === 1 ? 'has' : 'have'} one`;
  const size = `${count(adapterParameters)} parameters, ${percent(share)} of the model`;
  return wrap(`${able}, ${have}: ${size}`, ui.width ?? Infinity);
}
