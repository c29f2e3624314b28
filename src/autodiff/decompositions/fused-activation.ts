/** com.microsoft FusedGemm and FusedConv: Gemm and Conv followed by an activation. */
import type { Attributes } from '../../graph/builder.js';
import { Refusal } from '../refusal.js';
import type { Decomposition, NodeContext } from '../rule.js';

/** `activation(α · A · B + β · C)` */
export const fusedGemm: Decomposition = (context) => {
  const { node, x, y, c, float } = context;
  const inner = c.again(
    { ...node, opType: 'Gemm', domain: '', attributes: own(context) },
    x,
    c.type(y[0]!),
  );
  const alpha = float('activation_alpha', Number.NaN);
  const beta = float('activation_beta', Number.NaN);
  return [activated(context, inner, [alpha, beta])];
};

/** `activation(Conv(X, W) + b + Z)` */
export const fusedConv: Decomposition = (context) => {
  const { node, x, y, c } = context;
  const [input, weight, bias = '', added = ''] = x as [string, string, string?, string?];
  const inputs = bias ? [input, weight, bias] : [input, weight];
  const type = c.type(y[0]!);
  const conv = c.again(
    { ...node, opType: 'Conv', domain: '', attributes: own(context) },
    inputs,
    type,
  );
  const { activation_params: params } = node.attributes ?? {};
  const sum = added ? c.add(conv, added) : conv;
  return [activated(context, sum, params && 'floats' in params ? params.floats : [])];
};

/** The attributes of the operator without the activation's. */
function own({ node }: NodeContext): Attributes {
  const entries = Object.entries(node.attributes ?? {});
  return Object.fromEntries(entries.filter(([name]) => !name.startsWith('activation')));
}

/** The attributes that an activation's parameters are, in their order. */
const parameters: Readonly<Record<string, readonly string[]>> = {
  HardSigmoid: ['alpha', 'beta'],
  LeakyRelu: ['alpha'],
  Relu: [],
  Sigmoid: [],
  Tanh: [],
};

function activated({ c, text }: NodeContext, value: string, given: readonly number[]): string {
  const activation = text('activation', '');
  if (activation === '') return value;
  const names = Object.hasOwn(parameters, activation) ? parameters[activation] : undefined;
  if (!names) throw new Refusal(`the activation ${activation} is not supported`);
  const attributes = names.map((name, i) => [name, { float: given[i]! }] as const);
  const known = attributes.filter(([, { float }]) => Number.isFinite(float));
  return c.unary(activation, value, Object.fromEntries(known));
}
