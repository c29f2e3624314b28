/** Small decoders with a key-value cache, of one layer and random weights. */
import { fromFloat64, toFloat64 } from '../../src/onnx/dtype.js';
import { randomNumbers } from './adapters.js';
import { body, type ModelParts, model, node, tensor, value } from './models.js';

export const VOCABULARY = 200;
const WIDTH = 8;
const POSITIONS = 96;

interface DecoderOptions {
  /** `parts`: attention in single operators, as optimum exports it; `gqa`: as onnxruntime-genai builds it. */
  readonly attention?: 'parts' | 'gqa';
  /** Of the outputs that continue the cache. */
  readonly present?: string;
  /** Of all floats; `rounded` is float32 with the numbers that bfloat16 has. */
  readonly floats?: 'float32' | 'bfloat16' | 'rounded';
  /** Norms of the heads of q and k: as inputs of GroupQueryAttention, or as nodes before it. */
  readonly norms?: 'inside' | 'before';
  /** Gives zeros for the keys of the next run: a cache that is wrong. */
  readonly forgets?: boolean;
}

/** logits [batch, sequence, VOCABULARY] = h + attention(h), times a matrix. */
export function decoder(options: DecoderOptions = {}): Uint8Array {
  return model(partsOf(options));
}

function partsOf(options: DecoderOptions): ModelParts {
  const { attention = 'parts', present = 'present', forgets = false } = options;
  const { floats = 'float32', norms } = options;
  const type = floats === 'rounded' ? 'float32' : floats;
  const cache = (length: string) => ['batch_size', 1, length, WIDTH];
  const names = ['key', 'value'];
  const parts: ModelParts = {
    opset: 20,
    nodes: [
      node('Gather', ['table', 'input_ids'], 'tokens'),
      node('Gather', ['places', 'position_ids'], 'where'),
      node('Add', ['tokens', 'where'], 'h'),
      ...['q', 'k', 'v'].map((one) =>
        node('MatMul', ['h', `w${one}`], one, {}, `/attn/${one}/MatMul`),
      ),
      ...(attention === 'gqa' ? grouped(present, norms) : inParts(present, forgets)),
      node('Add', ['h', 'attended'], 'mixed'),
      node('MatMul', ['mixed', 'head'], 'logits', {}, '/lm_head/MatMul'),
    ],
    initializers: [
      tensor('table', [VOCABULARY, WIDTH], randomNumbers(1, VOCABULARY * WIDTH, 1)),
      tensor('places', [POSITIONS, WIDTH], randomNumbers(2, POSITIONS * WIDTH, 0.5)),
      ...['q', 'k', 'v'].map((one, i) =>
        tensor(`w${one}`, [WIDTH, WIDTH], randomNumbers(3 + i, WIDTH * WIDTH, 1)),
      ),
      tensor('head', [WIDTH, VOCABULARY], randomNumbers(7, VOCABULARY * WIDTH, 1)),
      ...[tensor('zero', [], [0], 'int64'), tensor('step', [], [1], 'int64')],
      ...[tensor('one', [1], [1], 'int64'), tensor('last', [1], [-1], 'int64')],
      ...['q', 'k'].map((one, i) => tensor(`${one}_gain`, [WIDTH], randomNumbers(8 + i, WIDTH, 1))),
      ...[tensor('closed', [], [-1e9]), tensor('scale', [], [WIDTH ** -0.5])],
    ],
    inputs: [
      value('input_ids', ['batch_size', 'sequence'], 'int64'),
      value('attention_mask', ['batch_size', 'total'], 'int64'),
      value('position_ids', ['batch_size', 'sequence'], 'int64'),
      ...names.map((name) =>
        value(`past_key_values.0.${name}`, cache('past_sequence_length'), type),
      ),
    ],
    outputs: [
      value('logits', ['batch_size', 'sequence', VOCABULARY], type),
      ...names.map((name) => value(`${present}.0.${name}`, cache('total'), type)),
    ],
  };
  return floats === 'float32' ? parts : { ...parts, initializers: roundedTo(type, parts) };
}

/** The floats of a model with the numbers that bfloat16 has, in a type. */
function roundedTo(type: 'float32' | 'bfloat16', { initializers = [] }: ModelParts) {
  return initializers.map((one) => {
    const { name, dims, dataType, rawData } = one;
    if (dataType !== 1) return one;
    const size = (dims as number[]).reduce((a, b) => a * b, 1);
    const narrow = fromFloat64('bfloat16', toFloat64('float32', rawData!, size));
    return tensor(name!, dims as number[], toFloat64('bfloat16', narrow, size), type);
  });
}

/** The decoder with its inputs as other exporters write them. */
export const forms: Readonly<Record<string, () => Uint8Array>> = {
  merged,
  joined: () => joined(1, WIDTH),
  'joined, sizes open': () => joined('heads', 'kv_dim'),
  counted,
  lengths,
};

const PAST = ['past_key_values.0.key', 'past_key_values.0.value'];

/** Two branches of the same names and weights, one without the cache. */
function merged(): Uint8Array {
  const { nodes, outputs, inputs, ...rest } = partsOf({});
  const outside = nodes.map((one) =>
    one.opType === 'Concat'
      ? { ...one, opType: 'Identity', input: [one.input![1]!], attribute: [] }
      : one,
  );
  const branch = (own: typeof nodes) => ({ graph: body({ nodes: own, outputs: names(outputs) }) });
  const branches = { then_branch: branch(nodes), else_branch: branch(outside) };
  return model({
    ...rest,
    nodes: [node('If', ['use_cache_branch'], names(outputs), branches)],
    inputs: [...inputs!, value('use_cache_branch', [1], 'bool')],
    outputs,
  });
}

/** Keys and values in one tensor. */
function joined(heads: number | string, size: number | string): Uint8Array {
  const { nodes, initializers, inputs, outputs, ...rest } = partsOf({});
  const cache = (length: string, sizes: readonly (number | string)[]) => {
    return [2, 'batch_size', sizes[0]!, length, sizes[1]!];
  };
  return model({
    ...rest,
    nodes: [
      node('Gather', ['past_0', 'zero'], PAST[0]!),
      node('Gather', ['past_0', 'step'], PAST[1]!),
      ...nodes,
      ...['key', 'value'].map((one) => node('Unsqueeze', [`present.0.${one}`, 'first'], `${one}5`)),
      node('Concat', ['key5', 'value5'], 'present_0', { axis: 0 }),
    ],
    initializers: [...initializers!, tensor('first', [1], [0], 'int64')],
    inputs: [
      ...without(inputs!, PAST),
      value('past_0', cache('past_sequence_length', [heads, size])),
    ],
    outputs: [outputs[0]!, value('present_0', cache('total', [1, WIDTH]))],
  });
}

/** Places, the length and the rows of logits are inputs. */
function counted(): Uint8Array {
  const { nodes, inputs, ...rest } = partsOf({});
  const own = nodes.flatMap((one) => {
    if (one.output![0] === 'total') return [];
    if (one.output![0] !== 'logits') return [one];
    const rows = [
      node('Neg', ['num_logits_to_keep'], 'from'),
      node('Slice', ['mixed', 'from', 'end', 'one'], 'kept'),
    ];
    return [...rows, { ...one, input: ['kept', 'head'] }];
  });
  return model({
    ...rest,
    nodes: [
      node('Unsqueeze', ['cache_position', 'first'], 'position_ids'),
      node('Identity', ['total_sequence_length'], 'total'),
      ...own,
    ],
    initializers: [
      ...rest.initializers!,
      tensor('first', [1], [0], 'int64'),
      tensor('end', [1], [2 ** 31 - 1], 'int64'),
    ],
    inputs: [
      ...without(inputs!, ['position_ids']),
      value('cache_position', ['sequence'], 'int64'),
      value('total_sequence_length', [], 'int64'),
      value('num_logits_to_keep', [1], 'int64'),
    ],
  });
}

/** GroupQueryAttention whose lengths are inputs. */
function lengths(): Uint8Array {
  const { nodes, inputs, ...rest } = partsOf({ attention: 'gqa' });
  const called = new Map([
    ['seqlens', 'seqlens_k'],
    ['total_32', 'total_sequence_length'],
  ]);
  const made = ['lengths', 'ends', 'seqlens', 'shape', 'total_64', 'total_32'];
  return model({
    ...rest,
    nodes: nodes
      .filter((one) => !made.includes(one.output![0]!))
      .map((one) => ({ ...one, input: one.input!.map((name) => called.get(name) ?? name) })),
    inputs: [
      ...inputs!,
      value('seqlens_k', ['batch_size'], 'int32'),
      value('total_sequence_length', [], 'int32'),
    ],
  });
}

function names(values: ModelParts['outputs']): string[] {
  return values.map((one) => (typeof one === 'string' ? one : one.name!));
}

function without(inputs: NonNullable<ModelParts['inputs']>, left: readonly string[]) {
  return inputs.filter((one) => !left.includes(names([one])[0]!));
}

function grouped(present: string, norms: DecoderOptions['norms']) {
  const [q, k] = norms === 'before' ? ['q_normed', 'k_normed'] : ['q', 'k'];
  const gains = norms === 'inside' ? [...Array<string>(7).fill(''), 'q_gain', 'k_gain'] : [];
  const before = ['q', 'k'].map((one) =>
    node('SimplifiedLayerNormalization', [one, `${one}_gain`], `${one}_normed`, {
      ...{ axis: -1, epsilon: { float: 1e-6 } },
    }),
  );
  return [
    ...(norms === 'before' ? before : []),
    node('ReduceSum', ['attention_mask', 'one'], 'lengths', { keepdims: 0 }),
    node('Sub', ['lengths', 'step'], 'ends'),
    node('Cast', ['ends'], 'seqlens', { to: 6 }),
    node('Shape', ['attention_mask'], 'shape'),
    node('Gather', ['shape', 'step'], 'total_64'),
    node('Cast', ['total_64'], 'total_32', { to: 6 }),
    node(
      'com.microsoft:GroupQueryAttention',
      [q!, k!, 'v', ...PAST, 'seqlens', 'total_32', ...gains],
      ['attended', `${present}.0.key`, `${present}.0.value`],
      { num_heads: 1, kv_num_heads: 1 },
    ),
  ];
}

function inParts(present: string, forgets: boolean) {
  return [
    ...['q', 'k', 'v'].map((one) => node('Unsqueeze', [one, 'one'], `${one}4`)),
    node('Concat', ['past_key_values.0.key', 'k4'], 'keys', { axis: 2 }),
    forgets
      ? node('Sub', ['keys', 'keys'], `${present}.0.key`)
      : node('Identity', ['keys'], `${present}.0.key`),
    node('Concat', ['past_key_values.0.value', 'v4'], `${present}.0.value`, { axis: 2 }),
    node('Transpose', ['keys'], 'columns', { perm: [0, 1, 3, 2] }),
    node('MatMul', ['q4', 'columns'], 'products'),
    node('Mul', ['products', 'scale'], 'scores'),
    node('Shape', ['attention_mask'], 'shape'),
    node('Gather', ['shape', 'step'], 'total'),
    node('Range', ['zero', 'total', 'step'], 'all'),
    node('Unsqueeze', ['position_ids', 'one'], 'rows'),
    node('Unsqueeze', ['rows', 'last'], 'own'),
    node('LessOrEqual', ['all', 'own'], 'open'),
    node('Where', ['open', 'scores', 'closed'], 'shown'),
    node('Softmax', ['shown'], 'shares', { axis: -1 }),
    node('MatMul', ['shares', `${present}.0.value`], 'heads'),
    node('Squeeze', ['heads', 'one'], 'attended'),
  ];
}
