/**
 * The table of operators that take adapters, found by trying: a model of one layer for each row is patched, trained
 * for a step, folded, and quantized again.
 */

import { refusedOperators } from '../../src/adapters/targets/index.js';
import { merge } from '../../src/commands/merge.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { OnnxLoraError } from '../../src/errors.js';
import { type DataTypeName, dataTypeNumber } from '../../src/onnx/dtype.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from './adapters.js';
import type { TemporaryFolder } from './files.js';
import { IN, integerForms, integerModel, OUT, ROWS } from './integers.js';
import { model, type NodeProto, node, type TensorProto, tensor, value } from './models.js';

interface Row {
  readonly operator: string;
  readonly weight: string;
  readonly bytes: Uint8Array;
}

const numbers = (count: number, seed = 1) => randomNumbers(seed, count).map((v) => v / 4);
const codes = (count: number, low: number, high: number) =>
  randomNumbers(3, count).map((v) => Math.round(low + ((v + 1) / 2) * (high - low)));

/** A layer from x to y in float32, around one that computes in `dtype`. */
function around(
  layer: NodeProto[],
  initializers: TensorProto[],
  dtype: DataTypeName = 'float32',
  dims: { x?: (string | number)[]; y?: (string | number)[] } = {},
): Uint8Array {
  const cast = (to: DataTypeName, from: string, out: string) =>
    node('Cast', [from], out, { to: dataTypeNumber(to) });
  return model({
    ...{ opset: 21, initializers },
    nodes: [cast(dtype, 'x', 'a'), ...layer, cast('float32', 'b', 'y')],
    inputs: [value('x', dims.x ?? ['rows', IN])],
    outputs: [value('y', dims.y ?? ['rows', OUT])],
  });
}

const floats = ['float32', 'float16', 'bfloat16', 'float64'] as const;

function floatRows(): Row[] {
  return floats.flatMap((dtype): Row[] => {
    const w = tensor('w', [IN, OUT], numbers(IN * OUT), dtype);
    const turned = tensor('w', [OUT, IN], numbers(IN * OUT), dtype);
    const kernel = tensor('w', [OUT, IN, 1, 1], numbers(IN * OUT), dtype);
    const row = (operator: string, layer: NodeProto[], weight: TensorProto) => ({
      ...{ operator, weight: dtype },
      bytes: around(layer, [weight], dtype),
    });
    const images = { x: ['rows', IN, 1, 1], y: ['rows', OUT, 1, 1] };
    return [
      row('MatMul', [node('MatMul', ['a', 'w'], 'b')], w),
      row('Gemm', [node('Gemm', ['a', 'w'], 'b', { transB: 1 })], turned),
      row(
        'FusedMatMul',
        [node('com.microsoft:FusedMatMul', ['a', 'w'], 'b', { transB: 1 })],
        turned,
      ),
      {
        ...{ operator: 'Conv 1x1', weight: dtype },
        bytes: around([node('Conv', ['a', 'w'], 'b')], [kernel], dtype, images),
      },
    ];
  });
}

function dequantizedRows(): Row[] {
  return (['int8', 'uint8', 'int4', 'uint4'] as const).map((dtype) => {
    const [low, high] = dtype.startsWith('u') ? [0, 15] : [-8, 7];
    const weight = tensor('w', [IN, OUT], codes(IN * OUT, low, high), dtype);
    const scale = tensor(
      's',
      [OUT],
      numbers(OUT).map((v) => Math.abs(v) + 0.1),
    );
    const step = node('DequantizeLinear', ['w', 's'], 'd', { axis: 1 });
    const layer = [step, node('MatMul', ['a', 'd'], 'b')];
    return {
      operator: 'MatMul of DequantizeLinear',
      weight: dtype,
      bytes: around(layer, [weight, scale]),
    };
  });
}

function packedRows(): Row[] {
  const rows: Row[] = [];
  for (const dtype of ['float32', 'float16'] as const) {
    for (const bits of [4, 8]) {
      const attributes = { K: IN, N: OUT, bits, block_size: 16 };
      const blob = (16 * bits) / 8;
      const tensors = [
        tensor('w', [OUT, 1, blob], codes(OUT * blob, 0, 255), 'uint8'),
        tensor(
          's',
          [OUT],
          numbers(OUT).map((v) => Math.abs(v) + 0.1),
          dtype,
        ),
      ];
      const layer = [node('com.microsoft:MatMulNBits', ['a', 'w', 's'], 'b', attributes)];
      const weight = `${bits} bits, ${dtype}`;
      rows.push({ operator: 'MatMulNBits', weight, bytes: around(layer, tensors, dtype) });
    }
  }
  for (const [type, weight] of ['FP4', 'NF4'].entries()) {
    const attributes = { K: IN, N: OUT, block_size: 16, quant_type: type };
    const tensors = [
      tensor('w', [(IN * OUT) / 2], codes((IN * OUT) / 2, 0, 255), 'uint8'),
      tensor('s', [(IN * OUT) / 16]),
    ];
    const layer = [node('com.microsoft:MatMulBnb4', ['a', 'w', 's'], 'b', attributes)];
    rows.push({ operator: 'MatMulBnb4', weight, bytes: around(layer, tensors) });
  }
  return rows;
}

function integerRows(): Row[] {
  return integerForms.flatMap((form) =>
    (['int8', 'uint8'] as const).map((dtype) => {
      const perColumn = !form.startsWith('Q');
      return {
        operator: form,
        weight: dtype,
        bytes: integerModel({ form, dtype, perColumn, seed: 7 }).bytes,
      };
    }),
  );
}

/** Attention gives a third of what its weight does. */
function attentionRows(): Row[] {
  return (['float32', 'float16'] as const).map((dtype) => {
    const attention = node('com.microsoft:Attention', ['s', 'w', 'zeros'], 't', { num_heads: 1 });
    const layer = [
      node('Unsqueeze', ['a', 'axis'], 's'),
      attention,
      node('Squeeze', ['t', 'axis'], 'b'),
    ];
    const tensors = [
      tensor('w', [IN, 3 * OUT], numbers(IN * 3 * OUT), dtype),
      tensor('zeros', [3 * OUT], numbers(3 * OUT), dtype),
      tensor('axis', [1], [0], 'int64'),
    ];
    return { operator: 'Attention', weight: dtype, bytes: around(layer, tensors, dtype) };
  });
}

/** One row for each operator and type of weight. */
export const tableRows: readonly Row[] = [
  ...floatRows(),
  ...attentionRows(),
  ...dequantizedRows(),
  ...packedRows(),
  ...integerRows(),
];

const columns = ['patch', 'train', 'fold', 'requantize'] as const;

/** A row's cells: `yes`, or the reason against it. */
async function cellsOf({ bytes, weight }: Row, folder: TemporaryFolder): Promise<string[]> {
  const patched = folder.fresh();
  const base = folder.write(bytes);
  const tries = {
    patch: () => patch(base, { rank: 2, blocks: 1, output: patched, targets: ['all'] }),
    train: () => trainStep(patched, folder, bytes),
    fold: () => merge(patched, { quantized: 'dequantize', output: folder.fresh(), verify: false }),
    requantize: () =>
      merge(patched, { quantized: 'requantize', output: folder.fresh(), verify: false }),
  };
  const cells: string[] = [];
  for (const column of columns) {
    const isIdle = column === 'requantize' && (floats as readonly string[]).includes(weight);
    cells.push(isIdle ? '-' : await cellOf(tries[column]));
  }
  return cells;
}

async function cellOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return 'yes';
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) throw error;
    return error.code === 'runtime' ? 'ONNX Runtime has no kernel' : 'no';
  }
}

function trainStep(path: string, folder: TemporaryFolder, bytes: Uint8Array): Promise<unknown> {
  const isImage = Buffer.from(bytes).includes('Conv');
  const dims = (size: number) => (isImage ? [ROWS, size, 1, 1] : [ROWS, size]);
  const data = safetensors({
    x: ['float32', dims(IN), [...numbers(ROWS * IN)]],
    target: ['float32', dims(OUT), [...numbers(ROWS * OUT, 2)]],
  });
  const how = { loss: 'mse', steps: 1, batchSize: ROWS, provider: 'cpu', guard: false } as const;
  const run = { data: folder.write(data, 'data.safetensors'), output: folder.fresh() };
  return runTraining(path, resolveTrainOptions({ ...how, ...run }));
}

/** The page of the documents, as Markdown. */
export async function operatorsPage(folder: TemporaryFolder): Promise<string> {
  const lines: string[] = [];
  for (const row of tableRows) {
    const cells = [row.operator, row.weight, ...(await cellsOf(row, folder))];
    lines.push(`| ${cells.join(' | ')} |`);
  }
  const refused = Object.entries(refusedOperators).map(
    ([name, reason]) => `| ${name.replace(/.*:/, '')} | ${reason} |`,
  );
  return `${[...HEAD, ...lines, ...REFUSED, ...refused].join('\n')}\n`;
}

const REFUSED = [
  '',
  'These hold weights, and take no adapters:',
  '',
  '| operator | why |',
  '|---|---|',
];

const HEAD = [
  '<!-- Made by npm run docs:operators. -->',
  '# Operators that take adapters',
  '',
  'Found by trying, on the CPU, with a model of one layer for each row: `patch`, a step of `train`, `merge` (with `--quantized',
  'dequantize` for weights in integers) and `merge --quantized requantize`. A type beside bits is that of the scales.',
  '[Limits](limits.md) has the reasons.',
  '',
  `| operator | weight | ${columns.join(' | ')} |`,
  '|---|---|---|---|---|---|',
];
