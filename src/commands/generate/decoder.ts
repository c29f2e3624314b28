/** A decoder that runs: the logits after a text, computed from the cache as far as that goes. */
import { OnnxLoraError } from '../../errors.js';
import type { Model } from '../../onnx/model.js';
import type { ValueMeta } from '../../runtime/session.js';
import { type Feeds, type TensorValue, tensorToFloat64 } from '../../runtime/tensor-value.js';
import { defaultOutput } from '../../training/default-output.js';
import { cachePairs } from './cache-pairs.js';
import {
  type DecoderInputs,
  decoderInputs,
  emptyCache,
  notDecoder,
  stepFeeds,
} from './decoder-inputs.js';

/** A model in ONNX Runtime. */
export interface Runner {
  readonly outputs: readonly ValueMeta[];
  run(feeds: Feeds): Promise<ReadonlyMap<string, TensorValue>>;
}

/** Numbers of logits in one run: long prompts go through the cache in parts. */
const MAX_LOGITS = 2 ** 24;

export class Decoder {
  /** The contents of the cache, and the tokens that they are of. */
  private cache: Feeds;
  private held: readonly number[] = [];

  private constructor(
    private readonly runner: Runner,
    private readonly label: string,
    private readonly inputs: DecoderInputs,
    private readonly logits: string,
    private pairs: ReadonlyMap<string, string> | undefined,
  ) {
    this.cache = emptyCache(inputs);
  }

  /**
   * @param own inputs that the runner feeds itself
   * @throws OnnxLoraError `unsupported` for a model that is not a decoder
   */
  static of(model: Model, runner: Runner, own?: ReadonlySet<string>): Decoder {
    const inputs = decoderInputs(model, own);
    const logits = logitsOf(model, runner.outputs);
    const others = runner.outputs.filter(({ name }) => name !== logits);
    const past = inputs.past.map(({ name, dtype, dims: shape }) => ({ name, dtype, shape }));
    // A run of fewer tokens than the model takes would put padding into the cache.
    const isPadded = inputs.length !== undefined && inputs.length > 1;
    const pairs = past.length === 0 || isPadded ? undefined : cachePairs(past, others);
    return new Decoder(runner, model.source.label, inputs, logits, pairs);
  }

  /** Whether the model takes a cache, which may be left empty. */
  get takesCache(): boolean {
    return this.inputs.past.length > 0;
  }

  /** Whether tokens are computed once and kept. */
  get usesCache(): boolean {
    return this.pairs !== undefined;
  }

  /** Number of tokens that the model has positions for, where that is known. */
  get positions(): number | undefined {
    const { length, positions } = this.inputs;
    return this.usesCache ? positions : (length ?? positions);
  }

  /** Numbers in a row of logits, where the model says so. */
  get vocabulary(): number | undefined {
    const size = this.runner.outputs.find(({ name }) => name === this.logits)!.shape.at(-1);
    return typeof size === 'number' ? size : undefined;
  }

  /** Computes whole texts from now on. */
  withoutCache(): void {
    this.pairs = undefined;
    this.forget();
  }

  /** Empties the cache: it was computed by other weights. */
  forget(): void {
    this.cache = emptyCache(this.inputs);
    this.held = [];
  }

  /**
   * The logits of the token after these.
   * @throws OnnxLoraError `runtime`
   */
  async after(ids: readonly number[]): Promise<Float64Array> {
    if (!this.pairs) return this.run(ids, 0, ids.length);
    if (!this.continues(ids)) this.forget();
    const most = this.longestRun();
    let row: Float64Array = new Float64Array();
    while (this.held.length < ids.length) {
      const end = Math.min(ids.length, this.held.length + most);
      row = await this.run(ids, this.held.length, end);
    }
    return row;
  }

  /** Whether the cache holds the beginning of a text, and the model takes what is left at once. */
  private continues(ids: readonly number[]): boolean {
    const rest = ids.length - this.held.length;
    if (this.inputs.hasBranch && this.held.length > 0 && rest > 1) return false;
    return rest > 0 && this.held.every((id, i) => id === ids[i]);
  }

  private longestRun(): number {
    if (this.inputs.length !== undefined) return this.inputs.length;
    if (this.inputs.hasBranch) return Number.POSITIVE_INFINITY;
    return Math.max(1, Math.floor(MAX_LOGITS / (this.vocabulary ?? 1)));
  }

  private async run(ids: readonly number[], start: number, end: number): Promise<Float64Array> {
    const some = ids.slice(start, end);
    const { length } = this.inputs;
    const feeds = stepFeeds(this.inputs, { ids: some, past: start, length });
    const outputs = await this.runner.run(new Map([...feeds, ...this.cache]));
    if (this.pairs) {
      this.cache = new Map([...this.pairs].map(([input, output]) => [input, outputs.get(output)!]));
      this.held = ids.slice(0, end);
    }
    return this.lastRow(outputs.get(this.logits)!, some.length);
  }

  /** Only one row of logits is looked at; a model may give no others. */
  private lastRow({ dtype, dims, data }: TensorValue, tokens: number): Float64Array {
    const [batch, rows, width] = dims;
    if (dims.length !== 3 || batch !== 1 || !rows || !width) {
      throw new OnnxLoraError(
        'unsupported',
        `${this.label}: ${this.logits} is [${dims.join(', ')}], expected [1, tokens, vocabulary]`,
        { hint: 'Texts are written by decoders exported for text generation.' },
      );
    }
    const row = Math.min(rows, tokens) - 1;
    const part = data.slice(row * width, (row + 1) * width) as typeof data;
    return tensorToFloat64({ dtype, dims: [width], data: part });
  }
}

function logitsOf(model: Model, outputs: readonly ValueMeta[]): string {
  const names = outputs.map(({ name }) => name);
  const name = names.includes('logits') ? 'logits' : defaultOutput(names);
  const output = outputs.find((one) => one.name === name);
  if (!output) throw notDecoder(model, `it has no output logits, but ${names.join(', ')}`);
  const { dtype, shape } = output;
  if (dtype?.startsWith('float') && (shape.length === 3 || shape.length === 0)) return output.name;
  const found = `${dtype ?? 'not a tensor'} [${shape.map((dim) => dim ?? '?').join(', ')}]`;
  throw notDecoder(model, `its output ${name} is ${found}, expected [batch, tokens, vocabulary]`);
}
