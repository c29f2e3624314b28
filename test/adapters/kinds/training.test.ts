/**
 * Five training steps of every kind of adapter against those that PEFT 0.21 took, and for grids of blocks
 * against PyTorch by hand: see test/fixtures/kinds/record.py.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { NewAdapter } from '../../../src/adapters/factors/factors.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import type { KindName } from '../../../src/adapters/structure/choices.js';
import { collect } from '../../../src/onnx/edit.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { buildForward } from '../../../src/training/forward.js';
import type { AllowedOperators } from '../../../src/training/layers/factor-gradients.js';
import { stepScalars } from '../../../src/training/optimizers/index.js';
import { buildStepGraph } from '../../../src/training/step-graph.js';
import { type InsertOptions, insertInto, randomNumbers } from '../../support/adapters.js';
import { model, node, tensor, value } from '../../support/models.js';
import { parse } from '../../support/wire.js';

/** What was recorded of a run; parameters by `layer.name`. */
interface Recorded {
  readonly losses: readonly number[];
  readonly gradientNorms: readonly number[];
  /** Those of the first step. */
  readonly gradients: Readonly<Record<string, readonly number[]>>;
  readonly final: Readonly<Record<string, readonly number[]>>;
}

const path = join(import.meta.dirname, '../../fixtures/kinds/peft.json');
const recorded = JSON.parse(readFileSync(path, 'utf8')) as Record<string, Recorded>;

const [IN, HIDDEN, OUT, BATCH, LENGTH] = [6, 8, 4, 5, 3];

/** [rows, columns] the other way round. */
function turned(values: ArrayLike<number>, rows: number, columns: number): number[] {
  return Array.from(
    { length: rows * columns },
    (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!,
  );
}

const W1 = turned(randomNumbers(11, HIDDEN * IN), HIDDEN, IN);
const W2 = turned(randomNumbers(13, OUT * HIDDEN), OUT, HIDDEN);
const initializers = [
  tensor('w1', [IN, HIDDEN], W1),
  tensor('b1', [HIDDEN], [...randomNumbers(12, HIDDEN)]),
  tensor('w2', [HIDDEN, OUT], W2),
  tensor('b2', [OUT], [...randomNumbers(14, OUT)]),
];

/** `tanh(x·W1 + b1)·W2 + b2` in the forms that exporters give it. */
const forms: Readonly<Record<string, () => Uint8Array>> = {
  MatMul: () =>
    model({
      nodes: [
        node('MatMul', ['x', 'w1'], 'h1', {}, '/first/MatMul'),
        node('Add', ['h1', 'b1'], 'h'),
        node('Tanh', ['h'], 't'),
        node('MatMul', ['t', 'w2'], 'y2', {}, '/second/MatMul'),
        node('Add', ['y2', 'b2'], 'y'),
      ],
      initializers,
      inputs: [value('x', ['batch', LENGTH, IN])],
      outputs: [value('y', ['batch', LENGTH, OUT])],
    }),
  Gemm: () =>
    model({
      nodes: [
        node('Reshape', ['x', 'rows'], 'flat'),
        node('Gemm', ['flat', 'w1t', 'b1'], 'h', { transB: 1 }, '/first/Gemm'),
        node('Tanh', ['h'], 't'),
        node('Gemm', ['t', 'w2', 'b2'], 'y2', {}, '/second/Gemm'),
        node('Reshape', ['y2', 'shape'], 'y'),
      ],
      initializers: [
        ...initializers,
        tensor('w1t', [HIDDEN, IN], turned(W1, IN, HIDDEN)),
        tensor('rows', [2], [-1, IN], 'int64'),
        tensor('shape', [3], [-1, LENGTH, OUT], 'int64'),
      ],
      inputs: [value('x', ['batch', LENGTH, IN])],
      outputs: [value('y', ['batch', LENGTH, OUT])],
    }),
  Conv: () =>
    model({
      nodes: [
        node('Transpose', ['x'], 'channels', { perm: [0, 2, 1] }),
        node('Conv', ['channels', 'k1', 'b1'], 'h', {}, '/first/Conv'),
        node('Tanh', ['h'], 't'),
        node('Conv', ['t', 'k2', 'b2'], 'y2', {}, '/second/Conv'),
        node('Transpose', ['y2'], 'y', { perm: [0, 2, 1] }),
      ],
      initializers: [
        ...initializers,
        tensor('k1', [HIDDEN, IN, 1], turned(W1, IN, HIDDEN)),
        tensor('k2', [OUT, HIDDEN, 1], turned(W2, HIDDEN, OUT)),
      ],
      inputs: [value('x', ['batch', LENGTH, IN])],
      outputs: [value('y', ['batch', LENGTH, OUT])],
    }),
};

interface Case {
  readonly recorded: string;
  readonly kind: KindName;
  readonly options: InsertOptions;
  readonly dropout?: number;
}

const plain: InsertOptions = { rank: 2, blocks: 1, alpha: 4, targets: ['all'] };
const blocks: InsertOptions = { rank: 4, blocks: 2, hybrid: 1, alpha: 8, targets: ['all'] };
const cases: readonly Case[] = [
  { recorded: 'dora', kind: 'dora', options: plain },
  { recorded: 'dora with dropout', kind: 'dora', options: plain, dropout: 0.25 },
  { recorded: 'dora in blocks', kind: 'dora', options: blocks },
  { recorded: 'hira', kind: 'hira', options: { ...plain, alpha: 2 } },
  { recorded: 'hira with dropout', kind: 'hira', options: { ...plain, alpha: 2 }, dropout: 0.25 },
  { recorded: 'hira in blocks', kind: 'hira', options: blocks },
];

const layers = ['first', 'second'] as const;
const isPlain = (one: Case) => one.options.blocks === 1;

/** The numbers that record.py starts with. */
function factors(one: Case): NonNullable<InsertOptions['factors']> {
  const seeds = { a: 21, b: 31, generalA: 51, generalB: 61 };
  return (planned) =>
    planned.map((adapter, i): NewAdapter => {
      const { in: rows, out, rank } = adapter.record;
      const values: NewAdapter['values'] = (factor) => {
        const sizes = isPlain(one)
          ? { a: rows * rank, b: rank * out, generalA: 0, generalB: 0 }
          : { a: rows * rank, b: rank * out, generalA: rows, generalB: out };
        const numbers = randomNumbers(seeds[factor] + i, sizes[factor], 0.5);
        if (!isPlain(one)) return numbers;
        return Float64Array.from(
          factor === 'a' ? turned(numbers, rank, rows) : turned(numbers, out, rank),
        );
      };
      if (one.kind !== 'dora') return { ...adapter, values };
      return { ...adapter, values, own: { magnitude: () => startOf(one, i, values, adapter) } };
    });
}

/** m at the start: the norms of W's columns in PEFT's run, where B was 0; by hand, those of W + ΔW. */
function startOf(
  one: Case,
  i: number,
  values: NewAdapter['values'],
  { record: { in: rows, out, scale, rank } }: NewAdapter,
): Float64Array {
  const w = i === 0 ? W1 : W2;
  const at = (matrix: ArrayLike<number>, row: number, column: number, width: number) =>
    matrix[row * width + column]!;
  const [height, width] = [rows / 2, out / 2];
  const [a, b] = [values('a'), values('b')];
  const [ga, gb] = isPlain(one) ? [[], []] : [values('generalA'), values('generalB')];
  const delta = (x: number, y: number) => {
    if (isPlain(one)) return 0;
    const [n, j] = [Math.floor(x / height), Math.floor(y / width)];
    let sum = ga[x]! * gb[y]!;
    for (let r = 0; r < rank / 2; r++) {
      sum +=
        at(a, x, (j * rank) / 2 + r, rank) * at(b, j * rank + (n * rank) / 2 + r, y % width, width);
    }
    return scale * sum;
  };
  return Float64Array.from({ length: out }, (_, y) =>
    Math.hypot(...Array.from({ length: rows }, (_, x) => at(w, x, y, out) + delta(x, y))),
  );
}

/** A recorded tensor as ours, by the name of our parameter. */
function recordedAs(
  one: Case,
  values: Recorded['final'],
  layer: string,
  key: string,
  size: readonly number[],
): readonly number[] {
  if (!isPlain(one)) return values[`${layer}.${key}`]!;
  if (key === 'magnitude') return values[`${layer}.lora_magnitude_vector`]!;
  const prefix = one.kind === 'hira' ? 'hira' : 'lora';
  const found = values[`${layer}.${prefix}_${key.toUpperCase()}`]!;
  return turned(found, size[1]!, size[0]!);
}

function distance(found: ArrayLike<number>, expected: readonly number[]): number {
  const length = Math.hypot(...expected);
  return Math.hypot(...expected.map((one, i) => one - found[i]!)) / length;
}

const dialects: Readonly<Record<string, AllowedOperators | undefined>> = {
  'as in the model': undefined,
  'for the CPU': { fused: true },
  'in standard operators': { fused: false },
};

/** Layers that are written anew for training, and layers that stay as they are. */
const ways: readonly (readonly [form: string, allowed: string])[] = [
  ['MatMul', 'as in the model'],
  ['MatMul', 'for the CPU'],
  ['MatMul', 'in standard operators'],
  ['Gemm', 'for the CPU'],
  ['Conv', 'as in the model'],
];

describe.each(cases)('$recorded', (one) => {
  // With dropout layers stay as they are.
  test.each(one.dropout ? ways.slice(0, 1) : ways)('%s, %s', (form, allowed) =>
    follows(one, forms[form]!(), dialects[allowed]),
  );
});

const HOW = {
  optimizer: 'adamw',
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0.01,
  momentum: 0,
  clip: 0,
} as const;

async function follows(one: Case, bytes: Uint8Array, rewrite: AllowedOperators | undefined) {
  const expected = recorded[one.recorded]!;
  const patched = new PatchedModel(
    parse(await insertInto(bytes, { ...one.options, kind: one.kind, factors: factors(one) })),
  );
  const reader = new TensorReader(patched.model, new ExternalFiles(patched.model));
  const { dropout } = one;
  const sizes = new Map([['batch', BATCH]]);
  const forward = await buildForward(patched, reader, { loss: 'mse', rewrite, dropout, sizes });
  const step = await buildStepGraph(forward, {
    ...{ ...HOW, accumulate: 1, fused: rewrite?.fused ?? false },
  });
  const session = await openSession(await collect(step.graph.modelPieces()));
  const theta = new Float32Array(step.size);
  for (const { name, offset } of forward.parameters) {
    theta.set(reader.float32(patched.initializer(name)), offset);
  }
  const state = new Map(
    step.state.map(({ input }) => [
      input,
      floats([step.size], input === 'theta' ? theta : new Float32Array(step.size)),
    ]),
  );
  const { noise: own } = forward;
  for (const [i, loss] of expected.losses.entries()) {
    const scalars = Object.entries(stepScalars(HOW, 0.05, i + 1));
    const outputs = await session.run(
      new Map<string, TensorValue>([
        ['x', floats([BATCH, LENGTH, IN], randomNumbers(100 + i, BATCH * LENGTH * IN))],
        ['target', floats([BATCH, LENGTH, OUT], randomNumbers(200 + i, BATCH * LENGTH * OUT))],
        ...(own ? [[own.input, floats([own.size], noise(own.size))] as const] : []),
        ...scalars.map(([name, scalar]) => [name, floats([], [scalar])] as const),
        ...state,
      ]),
    );
    const close = (name: string, wanted: number) =>
      expect(Math.abs(Number(outputs.get(name)!.data[0]) / wanted - 1), name).toBeLessThan(1e-4);
    close(step.loss, loss);
    close(step.gradientNorm, expected.gradientNorms[i]!);
    for (const { input, output } of step.state) {
      state.set(input, outputs.get(output)! as ReturnType<typeof floats>);
      if (i > 0 || input !== 'm') continue;
      // AdamW's first moment is a tenth of the gradient.
      const gradients = (outputs.get(output)!.data as Float32Array).map((m) => m * 10);
      compare(one, patched, forward, gradients, expected.gradients);
    }
  }
  await session.release();
  compare(one, patched, forward, state.get('theta')!.data as Float32Array, expected.final);
}

function compare(
  one: Case,
  patched: PatchedModel,
  { parameters }: { parameters: Awaited<ReturnType<typeof buildForward>>['parameters'] },
  found: Float32Array,
  expected: Recorded['final'],
) {
  for (const [i, adapter] of patched.sets[0]!.adapters.entries()) {
    const keys = ['a', 'b', 'generalA', 'generalB', 'magnitude'] as const;
    for (const key of keys) {
      const parameter = parameters.find(({ name }) => name === adapter[key]);
      if (!parameter) continue;
      const { offset, length, shape } = parameter;
      const wanted = recordedAs(one, expected, layers[i]!, key, shape);
      expect(wanted.length).toBe(length);
      const part = found.subarray(offset, offset + length);
      expect(distance(part, wanted), `${layers[i]} ${key}`).toBeLessThan(5e-4);
    }
  }
}

function noise(length: number): Float64Array {
  return randomNumbers(41, length).map(Math.abs);
}

function floats(dims: readonly number[], values: ArrayLike<number>) {
  return { dtype: 'float32', dims, data: Float32Array.from(values) } as const;
}
