/** Layers that multiply integers, from patch to merge: the adapter works in floats beside them. */
import { beforeAll, describe, expect, test } from 'vitest';
import type { NewAdapter } from '../../src/adapters/factors/factors.js';
import { inspect } from '../../src/commands/inspect.js';
import { foldAdapters } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { openModel } from '../../src/onnx/parse.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { sameFiles, temporaryFolder } from '../support/files.js';
import {
  IN,
  type IntegerCase,
  type IntegerModel,
  integerForms,
  integerModel,
  OUT,
  ROWS,
} from '../support/integers.js';
import { model, node, tensor, value } from '../support/models.js';
import { expectClose, expectSame, feed, maxDifference, run } from '../support/run.js';

const folder = temporaryFolder();

const cases = integerForms.flatMap((form, i): IntegerCase[] => [
  { form, dtype: 'int8', perColumn: false, seed: i + 1 },
  // QLinearMatMul of ONNX Runtime takes zero points of int8 for columns only where all are equal.
  { form, dtype: 'uint8', perColumn: !form.startsWith('Q'), seed: i + 20 },
]);
const name = ({ form, dtype, perColumn }: IntegerCase) =>
  `${form}, ${dtype}${perColumn ? ' per column' : ''}`;

describe.each(cases.map((one) => [name(one), one] as const))('%s', (_, one) => {
  const made = integerModel(one);
  let base = '';
  beforeAll(() => {
    base = folder.write(made.bytes);
  });

  test('computes the same when it is patched, and is the same file unpatched', async () => {
    const { output, adapters } = await patch(base, { rank: 2, blocks: 1, output: folder.fresh() });
    expect(adapters).toHaveLength(1);
    for (const optimization of ['disabled', 'all'] as const) {
      expectSame(
        await run(output, made.feeds, optimization),
        await run(base, made.feeds, optimization),
      );
    }
    await unpatch(output, { output: folder.fresh() }).then((undone) =>
      expect(sameFiles(undone.output, base)).toBe(true),
    );
  });

  test('adds X · ΔW of the activation before it is rounded', async () => {
    const { patched, delta } = await withAdapter(base);
    const before = (await run(base, made.feeds)).y!.data;
    const after = (await run(patched, made.feeds)).y!.data;
    const added = after.map((y, i) => y - before[i]!);
    expect(maxDifference(added, product(made.x, delta))).toBeLessThan(2e-6);
  });

  test('becomes a product of floats where it is merged', async () => {
    const { patched, delta } = await withAdapter(base);
    const output = folder.fresh();
    const { merged } = await foldAdapters(patched, { output });
    expect(merged).toMatchObject([{ kind: 'dequantized' }]);
    const expected = floatOutput(made, delta);
    expect(maxDifference((await run(output, made.feeds)).y!.data, expected)).toBeLessThan(2e-6);
    const opened = openModel(output);
    const operators = opened.graph.nodes.map(({ opType }) => opType);
    opened.close();
    expect(operators.filter((op) => /Integer|Q|Quantize/.test(op))).toEqual([]);
  });

  test('is within its own rounding of the layer in floats', async () => {
    const found = (await run(base, made.feeds)).y!.data;
    const expected = floatOutput(made, new Float64Array(IN * OUT));
    const activation = IN * (2 / 255) * Math.max(...made.weight.map(Math.abs));
    expect(maxDifference(found, expected)).toBeLessThan(activation / 2 + made.step);
  });
});

test.each(['NF4', 'FP4'])('MatMulBnb4 (%s) takes adapters and folds', async (type) => {
  const bytes = bnb4Model(type === 'NF4' ? 1 : 0);
  const base = folder.write(bytes);
  const feeds = { x: feed([ROWS, IN], randomNumbers(8, ROWS * IN)) };
  const { output } = await patch(base, { rank: 2, blocks: 1, output: folder.fresh() });
  expectSame(await run(output, feeds, 'all'), await run(base, feeds, 'all'));
  const { patched } = await withAdapter(base);
  const merged = folder.fresh();
  await foldAdapters(patched, { output: merged });
  expectClose(await run(merged, feeds), await run(patched, feeds), 2e-6);
});

function bnb4Model(type: number): Uint8Array {
  const codes = randomNumbers(6, (IN * OUT) / 2, 127).map((v) => Math.round(v + 128));
  const attributes = { K: IN, N: OUT, block_size: 16, quant_type: type };
  return model({
    nodes: [node('com.microsoft:MatMulBnb4', ['x', 'w', 'absmax'], 'y', attributes, 'layer')],
    initializers: [
      tensor('w', [codes.length], codes, 'uint8'),
      tensor('absmax', [(IN * OUT) / 16]),
    ],
    inputs: [value('x', ['rows', IN])],
    outputs: [value('y', ['rows', OUT])],
  });
}

test('inspect names the node that multiplies', async () => {
  const { bytes } = integerModel({
    form: 'MatMulInteger',
    dtype: 'int8',
    perColumn: true,
    seed: 1,
  });
  const { targets } = await inspect(folder.write(bytes));
  expect(targets).toMatchObject([
    { node: 'layer', op: 'MatMulInteger', eligible: true, weight: { name: 'w', dtype: 'int8' } },
  ]);
});

async function withAdapter(base: string) {
  let adapter: NewAdapter | undefined;
  const patched = folder.fresh();
  await patchFile(base, patched, {
    ...{ rank: 2, blocks: 1 },
    factors: (planned) => trained(planned, 5, 0.5).map((made) => (adapter = made)),
  });
  const { values, record } = adapter!;
  const [a, b] = [values('a'), values('b')];
  const delta = new Float64Array(IN * OUT).map((_, i) => {
    const [row, column] = [Math.floor(i / OUT), i % OUT];
    return record.scale * (a[row * 2]! * b[column]! + a[row * 2 + 1]! * b[OUT + column]!);
  });
  return { patched, delta };
}

function product(x: Float64Array, weight: Float64Array): Float64Array {
  return new Float64Array(ROWS * OUT).map((_, i) => {
    let sum = 0;
    for (let k = 0; k < IN; k++)
      sum += x[Math.floor(i / OUT) * IN + k]! * weight[k * OUT + (i % OUT)]!;
    return sum;
  });
}

function floatOutput({ x, weight, bias }: IntegerModel, delta: Float64Array): Float64Array {
  const sum = weight.map((w, i) => w + delta[i]!);
  return product(x, sum).map((y, i) => y + bias[i % OUT]!);
}
