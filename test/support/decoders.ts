/** Small decoders with a key-value cache, of one layer and random weights. */
import { randomNumbers } from './adapters.js';
import { model, node, tensor, value } from './models.js';

export const VOCABULARY = 200;
const WIDTH = 8;
const POSITIONS = 96;

interface DecoderOptions {
  /** `parts`: attention in single operators, as optimum exports it; `gqa`: as onnxruntime-genai builds it. */
  readonly attention?: 'parts' | 'gqa';
  /** Of the outputs that continue the cache. */
  readonly present?: string;
  /** Gives zeros for the keys of the next run: a cache that is wrong. */
  readonly forgets?: boolean;
}

/** logits [batch, sequence, VOCABULARY] = h + attention(h), times a matrix. */
export function decoder(options: DecoderOptions = {}): Uint8Array {
  const { attention = 'parts', present = 'present', forgets = false } = options;
  const cache = (length: string) => ['batch_size', 1, length, WIDTH];
  const names = ['key', 'value'];
  return model({
    opset: 20,
    nodes: [
      node('Gather', ['table', 'input_ids'], 'tokens'),
      node('Gather', ['places', 'position_ids'], 'where'),
      node('Add', ['tokens', 'where'], 'h'),
      ...['q', 'k', 'v'].map((one) =>
        node('MatMul', ['h', `w${one}`], one, {}, `/attn/${one}/MatMul`),
      ),
      ...(attention === 'gqa' ? grouped(present) : inParts(present, forgets)),
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
      ...[tensor('closed', [], [-1e9]), tensor('scale', [], [WIDTH ** -0.5])],
    ],
    inputs: [
      value('input_ids', ['batch_size', 'sequence'], 'int64'),
      value('attention_mask', ['batch_size', 'total'], 'int64'),
      value('position_ids', ['batch_size', 'sequence'], 'int64'),
      ...names.map((name) => value(`past_key_values.0.${name}`, cache('past_sequence_length'))),
    ],
    outputs: [
      value('logits', ['batch_size', 'sequence', VOCABULARY]),
      ...names.map((name) => value(`${present}.0.${name}`, cache('total'))),
    ],
  });
}

function grouped(present: string) {
  return [
    node('ReduceSum', ['attention_mask', 'one'], 'lengths', { keepdims: 0 }),
    node('Sub', ['lengths', 'step'], 'ends'),
    node('Cast', ['ends'], 'seqlens', { to: 6 }),
    node('Shape', ['attention_mask'], 'shape'),
    node('Gather', ['shape', 'step'], 'total_64'),
    node('Cast', ['total_64'], 'total_32', { to: 6 }),
    node(
      'com.microsoft:GroupQueryAttention',
      ['q', 'k', 'v', 'past_key_values.0.key', 'past_key_values.0.value', 'seqlens', 'total_32'],
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
