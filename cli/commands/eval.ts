import type { EvaluateResult } from '../../src/commands/evaluate.js';
import type { Expectation } from '../../src/commands/expectations.js';
import { evalOptions } from '../../src/commands/options/eval.js';
import { OnnxLoraError } from '../../src/errors.js';
import { varied } from '../../src/options/option.js';
import { measuresOfLosses } from '../../src/training/losses/index.js';
import { defineCommand } from '../command.js';
import { verboseOption } from '../common-options.js';
import type { Column } from '../table.js';
import { duration, measure, plural, printable } from '../text.js';
import { guardLines } from '../verification.js';

export const evalCommand = defineCommand({
  name: 'eval',
  summary: 'measure a model on data: the loss, and what fits it',
  description: `For models with adapters and without. Measures ${measuresOfLosses()}.`,
  positionals: {
    model: { value: 'MODEL', summary: 'a model, patched or not: an .onnx file, or its folder' },
  },
  options: {
    ...evalOptions,
    verbose: varied(verboseOption.verbose, {
      summary: 'show what the comparison with the file found and took',
      example: '--verbose',
      needs: ['guard'],
    }),
  },
  examples: [
    {
      command: 'onnx-lora eval model.onnx --data test.safetensors --loss cross-entropy',
      summary: 'loss, accuracy and F1',
    },
    {
      command: 'onnx-lora eval model.merged.onnx --config test.json --expect "cer<0.1" --json',
      summary: 'in a script: exit status 2 where more than a tenth is misread',
    },
  ],
  readOnly: true,
  async run({ model, verbose, ...options }, ui) {
    const { evaluate } = await import('../../src/commands/evaluate.js');
    const result = await evaluate(model, { ...options, ...ui.work, onNote: ui.note });
    const text = () => {
      const { model: _, samples, skippedRows, warnings: __, provider, seconds, ...rest } = result;
      const { expectations = [], guard, ...measures } = rest;
      const rows = Object.entries(measures).map(([name, value]) => ({
        name,
        value,
        expected: expectations.filter((one) => one.measure === name),
      }));
      const skipped = skippedRows ? ` (${plural(skippedRows, 'bad row')} left out)` : '';
      const cost = `${plural(samples, 'sample')}${skipped} in ${duration(seconds)} on ${provider.used}`;
      const page = options.html === undefined ? '' : `\nwrote ${printable(options.html)}\n`;
      const compared = verbose ? guardLines(guard).map((line) => `${line}\n`) : [];
      const table = ui.table(columnsFor(rows), rows);
      return `${printable(model)}: ${cost}\n\n${table}\n${compared.join('')}${page}`;
    };
    return { result, text, failure: failureOf(result) };
  },
});

interface Measure {
  readonly name: string;
  readonly value: number;
  readonly expected: readonly Expectation[];
}

function columnsFor(rows: readonly Measure[]): Column<Measure>[] {
  const columns: Column<Measure>[] = [
    { title: 'measure', value: ({ name }) => name },
    { title: 'value', value: ({ value }) => measure(value), align: 'right' },
  ];
  if (rows.every(({ expected }) => expected.length === 0)) return columns;
  const verdict = ({ comparison, limit, passed }: Expectation) =>
    `${comparison} ${limit} ${passed ? 'met' : 'MISSED'}`;
  return [
    ...columns,
    { title: 'expected', value: ({ expected }) => expected.map(verdict).join(', ') },
  ];
}

function failureOf({ model, expectations = [] }: EvaluateResult): OnnxLoraError | undefined {
  const missed = expectations.filter(({ passed }) => !passed);
  if (missed.length === 0) return undefined;
  // All digits: a value that was rounded up to the limit would look as if it had reached it.
  const listed = missed.map(
    (one) => `${one.measure} is ${one.found}, expected ${one.comparison} ${one.limit}`,
  );
  return new OnnxLoraError('verification', `${model}: ${listed.join('; ')}`);
}
