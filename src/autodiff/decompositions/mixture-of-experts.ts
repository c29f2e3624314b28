/**
 * com.microsoft MoE and QMoE: every token goes through the few experts that a router chooses for it. All experts
 * compute all tokens here, and those that were not chosen count with weight 0, so that the work is that of
 * experts / k times as many tokens.
 */
import { dequantizedBlocks } from '../block-weight.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { Decomposition, NodeContext } from '../rule.js';
import { refuseIf } from './heads.js';

/** The matrix [experts, out, in] and the bias [experts, out] of one of the layers of the experts. */
interface ExpertLayer {
  readonly weight: string;
  readonly bias: string;
}

export const mixtureOfExperts: Decomposition = (context) => {
  const [input, router, ...rest] = context.x as [string, string];
  const [up = '', upBias = '', down = '', downBias = '', gate = ''] = rest as string[];
  refuseIf(gate !== '', 'a third matrix of experts is not supported');
  const layers = [
    { weight: up, bias: upBias },
    { weight: down, bias: downBias },
  ] as const;
  return [mixed(context, [input, router, router], layers)];
};

export const quantizedMixtureOfExperts: Decomposition = (context) => {
  const { x, text } = context;
  const at = (index: number) => x[index] ?? '';
  refuseIf(at(8) !== '', 'a third matrix of experts is not supported');
  const kind = text('quant_type', 'int');
  refuseIf(kind !== 'int', `weights of the type ${kind} are not supported`);
  const layers = [
    { weight: dequantized(context, 1, [at(2), at(3), at(11)]), bias: at(4) },
    { weight: dequantized(context, 2, [at(5), at(6), at(12)]), bias: at(7) },
  ] as const;
  return [mixed(context, [at(0), at(1), at(14) || at(1)], layers)];
};

/**
 * @param values input, the numbers by which experts are chosen, and those by which they are weighed
 * @param layers up and down
 */
function mixed(
  context: NodeContext,
  [input, router, mixing]: readonly [string, string, string],
  [up, down]: readonly [ExpertLayer, ExpertLayer],
): string {
  const { c, int } = context;
  refuseIf(int('use_sparse_mixer', 0) !== 0, 'use_sparse_mixer is not supported');
  const width = c.dims(input).at(-1)!;
  refuseIf(typeof width !== 'number', 'the width of its input is not static');
  const tokens = c.reshape(input, c.integers([-1, Number(width)]), [null, width]);
  const hidden = activated(context, layer(c, c.unsqueeze(tokens, [0]), up));
  const answers = layer(c, hidden, down);
  const shares = c.unsqueeze(c.transpose(sharesOf(context, router, mixing), [1, 0]), [2]);
  const sum = c.reduceSum(c.mul(answers, shares), [0], false);
  return c.reshapeLike(sum, input);
}

/** [1 or experts, tokens, in] to [experts, tokens, out]. */
function layer(c: OpBuilder, value: string, { weight, bias }: ExpertLayer): string {
  const product = c.matMul(value, c.swapLast(weight));
  return bias === '' ? product : c.add(product, c.unsqueeze(bias, [1]));
}

/** The shares of the experts in each token's answer: [tokens, experts], 0 for those that are not chosen. */
function sharesOf({ c, int }: NodeContext, router: string, mixing: string): string {
  const { dtype, shape } = c.type(router);
  const chosen = [shape?.[0] ?? null, int('k', 1)];
  const types = [dtype, 'int64'].map((one) => ({ dtype: one as typeof dtype, shape: chosen }));
  const [, places] = c.ops('TopK', [router, c.integers([int('k', 1)])], types, {
    axis: { int: -1 },
  }) as [string, string];
  const ones = c.op('Expand', [c.scalar(dtype, 1), c.shapeOf(places)], { dtype, shape: chosen });
  const marks = c.op(
    'ScatterElements',
    [c.zeros(router), places, ones],
    { dtype, shape },
    {
      axis: { int: 1 },
    },
  );
  const isChosen = c.cast(marks, 'bool');
  const isNormalized = int('normalize_routing_weights', 0) === 1;
  if (mixing !== router) {
    const own = c.masked(isChosen, mixing);
    return isNormalized ? c.div(own, c.reduceSum(own, [1])) : own;
  }
  // Shares of those that are chosen are their part of all, or of one another.
  const seen = isNormalized ? c.where(isChosen, router, c.number(router, NEVER)) : router;
  return c.masked(isChosen, c.unary('Softmax', seen, { axis: { int: -1 } }));
}

/** Before a softmax: no share. */
const NEVER = -1e30;

const plain: Readonly<Record<string, (c: OpBuilder, value: string) => string>> = {
  identity: (_, value) => value,
  relu: (c, value) => c.unary('Relu', value),
  silu: (c, value) => c.mul(value, c.unary('Sigmoid', value)),
};

function activated(context: NodeContext, value: string): string {
  const { c, text } = context;
  const name = text('activation_type', 'relu');
  if (name === 'swiglu') return swiglu(context, value);
  if (name === 'gelu') return c.again(FAST_GELU, [value], c.type(value));
  const own = Object.hasOwn(plain, name) ? plain[name] : undefined;
  if (!own) throw new Refusal(`the activation ${name} is not supported`);
  return own(c, value);
}

const FAST_GELU = { opType: 'FastGelu', domain: 'com.microsoft', attributes: {} };

/** `g · sigmoid(α · g) · (l + β)` of a gate g and a line l, both within the limit. */
function swiglu({ c, int, float }: NodeContext, value: string): string {
  const fusion = int('swiglu_fusion', 0);
  refuseIf(fusion !== 1 && fusion !== 2, 'a gate and a line apart are not supported');
  refuseIf(
    int('swiglu_limit_after_activation', 0) === 1,
    'swiglu_limit_after_activation is not supported',
  );
  const [gates, lines] = halves(c, value, fusion === 1);
  const limit = float('swiglu_limit', Number.POSITIVE_INFINITY);
  const isLimited = Number.isFinite(limit);
  const gate = isLimited ? c.op('Min', [gates, c.number(gates, limit)], c.type(gates)) : gates;
  const bounds = [-limit, limit].map((bound) => c.number(lines, bound));
  const line = isLimited ? c.op('Clip', [lines, ...bounds], c.type(lines)) : lines;
  const share = c.unary('Sigmoid', c.scale(gate, float('activation_alpha', 1)));
  return c.mul(c.mul(gate, share), c.shift(line, float('activation_beta', 0)));
}

/** The two halves of the last axis, whose numbers take turns or lie one half after the other. */
function halves(c: OpBuilder, value: string, takeTurns: boolean): [string, string] {
  const shape = c.dims(value);
  const width = shape.at(-1)!;
  refuseIf(typeof width !== 'number', 'the width of its experts is not static');
  const half = Number(width) / 2;
  const [axis, bounds] = takeTurns ? [3, [0, 1, 2]] : [2, [0, half, 2 * half]];
  const part = (i: number) => c.stretch(paired, axis, bounds[i]!, bounds[i + 1]!);
  const sizes = [...shape.slice(0, -1), half];
  const paired = takeTurns ? c.reshape(value, c.integers([0, -1, half, 2]), [...sizes, 2]) : value;
  const joined = (one: string) =>
    takeTurns ? c.reshape(one, c.integers([0, -1, half]), sizes) : one;
  return [joined(part(0)), joined(part(1))];
}

/** The weight [experts, out, in] of packed integers. */
function dequantized(
  { c, int }: NodeContext,
  number: 1 | 2,
  [weight, scales, zeros]: readonly [string, string, string],
): string {
  const bits = int(`fc${number}_expert_weight_bits`, int('expert_weight_bits', 4));
  const [experts, out, bytes] = c.dims(weight).map(Number) as [number, number, number];
  const width = (bytes * 8) / bits;
  const blocks: Readonly<Record<string, number>> = {
    ...{ K: width, N: experts * out, bits },
    block_size: int('block_size', 0) > 0 ? int('block_size', 0) : width,
  };
  const isPrepacked = int('weights_prepacked', -1) === 1;
  const inputs = { weight, scales, zeros, groups: '' };
  const rows = isPrepacked
    ? undefined
    : dequantizedBlocks({ c, int: (name, otherwise) => blocks[name] ?? otherwise }, inputs);
  if (rows === undefined) throw new Refusal(`the integers of ${weight} are of a form of their own`);
  return c.reshape(rows, c.integers([experts, out, width]), [experts, out, width]);
}
