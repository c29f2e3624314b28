/** Texts in a file of rows as samples: read and encoded when their batch is made. */
import { OnnxLoraError } from '../../errors.js';
import { elementCount } from '../../onnx/model.js';
import { type TensorValue, tensorFromNumbers } from '../../runtime/tensor-value.js';
import type { Dataset, SampleSpec } from '../dataset.js';
import { DEFAULT_IGNORE_INDEX } from '../ignore-index.js';
import { askerOf } from '../label-kind.js';
import type { DataRequest } from '../request.js';
import { fieldOf } from '../rows/fields.js';
import type { Labels } from '../rows/label-collector.js';
import { RowFile } from '../rows/row-file.js';
import type { EncodedText, RowEncoder } from './encoder.js';
import type { TextFields } from './fields.js';
import { FirstPass } from './first-pass.js';
import { type TextInputs, textInputs } from './inputs.js';
import { lengthLimit } from './length.js';
import { padded } from './padding.js';
import { TextTokenizer } from './tokenizer.js';

/**
 * Opens a file of rows with texts for a model that takes tokens. Every row is looked at once, without
 * encoding it (with `truncate: false` it is encoded); memory follows the number of rows only.
 * @throws OnnxLoraError `invalid-argument` for fields or a tokenizer that are not known, `unsupported`
 * for a model with other inputs, `invalid-data` naming file and line of a bad row, and those of reading
 */
export async function openTexts(path: string, request: DataRequest): Promise<Dataset> {
  const inputs = textInputs(request.inputs);
  const tokenizer = TextTokenizer.open(tokenizerOf(path, request));
  const limit = lengthLimit(tokenizer, inputs, request);
  noteMissingMask(path, inputs, request);
  const reader = new FirstPass(path, tokenizer, limit, request);
  const file = await RowFile.open(path, (row) => reader.take(row), request);
  return new TextDataset(path, file, { inputs, tokenizer, limit, request, ...reader.result() });
}

function tokenizerOf(path: string, request: DataRequest): string {
  const { tokenizer, labelKind } = request;
  if (labelKind === 'spelling') {
    throw new OnnxLoraError(
      'invalid-argument',
      `${askerOf(request)} reads signals or images, ${path} holds texts`,
    );
  }
  if (tokenizer !== undefined) return tokenizer;
  throw new OnnxLoraError('invalid-argument', `the texts of ${path} need a tokenizer`, {
    hint: "Give the model's own with `tokenizer`: its tokenizer.json, or the folder that holds it.",
  });
}

function noteMissingMask(path: string, { sequences }: TextInputs, { onNote }: DataRequest): void {
  if (sequences.some(({ role }) => role === 'mask')) return;
  onNote?.(`${path}: the model takes no mask, so it reads the padding of shorter texts as text`);
}

interface Parts {
  readonly inputs: TextInputs;
  readonly tokenizer: TextTokenizer;
  /** Most tokens of a text. */
  readonly limit: number;
  readonly request: DataRequest;
  readonly fields: TextFields;
  readonly encoder: RowEncoder;
  readonly labels: Labels | undefined;
}

interface Sample {
  readonly texts: readonly EncodedText[];
  readonly label: unknown;
}

/** Samples with the lengths of texts. */
const PROBES = 64;

const TOKEN_LABELS = 'labels';

class TextDataset implements Dataset {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  readonly recipe: string;

  constructor(
    readonly label: string,
    private readonly file: RowFile,
    private readonly parts: Parts,
  ) {
    this.keys = this.specs();
    const { tokenizer, fields, limit, labels } = parts;
    const named = [...fields.texts, ...(fields.label === undefined ? [] : [fields.label])];
    const classes = labels?.classes ? `, classes ${labels.classes.join('|')}` : '';
    this.recipe = `${named.join('+')} by tokenizer ${tokenizer.digest} in ${limit} tokens${classes}`;
  }

  get size(): number {
    return this.file.size;
  }

  get skipped(): number {
    return this.file.skipped;
  }

  get classes(): readonly string[] | undefined {
    return this.parts.labels?.classes;
  }

  get isChat(): boolean {
    return this.parts.fields.isChat;
  }

  /** In bytes of its row. */
  lengthOf(sample: number): number {
    return this.file.lengthOf(sample);
  }

  placeOf(sample: number): string {
    return this.file.placeOf(sample);
  }

  async batch(
    indices: ArrayLike<number>,
    keys: Iterable<string> = this.keys.keys(),
  ): Promise<Map<string, TensorValue>> {
    const samples = this.samples(Array.from(indices));
    const made = new Map([...this.sequences(samples), ...this.others(samples)]);
    return new Map(Array.from(keys, (key) => [key, made.get(key)!]));
  }

  close(): void {
    this.file.close();
  }

  /** [samples, tokens], or [samples, texts, tokens] for texts that are compared. */
  private sequences(samples: readonly Sample[]): [string, TensorValue][] {
    const { inputs, tokenizer, fields, request } = this.parts;
    const texts = samples.flatMap((sample) => sample.texts);
    const longest = Math.max(1, ...texts.map(({ ids }) => ids.length));
    const length = inputs.length ?? longest;
    const areCompared = request.labelKind === 'pairs';
    const lead = areCompared ? [samples.length, fields.texts.length] : [samples.length];
    const dims = [...lead, length];
    const padId = tokenizer.padId ?? 0;
    const made = inputs.sequences.map(({ name, dtype, role }): [string, TensorValue] => {
      return [name, tensorFromNumbers(dtype, dims, padded(texts, role, length, padId))];
    });
    if (request.labelKind !== 'tokens') return made;
    const { ignoreIndex = DEFAULT_IGNORE_INDEX } = request;
    const labels = padded(texts, 'labels', length, ignoreIndex);
    return [...made, [TOKEN_LABELS, tensorFromNumbers('int64', dims, labels)]];
  }

  private others(samples: readonly Sample[]): [string, TensorValue][] {
    const { inputs, labels } = this.parts;
    const past = inputs.past.map(({ name, dtype, shape }): [string, TensorValue] => {
      const dims = [samples.length, ...shape];
      return [name, tensorFromNumbers(dtype, dims, new Float64Array(elementCount(dims)))];
    });
    if (!labels) return past;
    return [...past, [labels.key, labels.batch(samples.map(({ label }) => label))]];
  }

  private samples(indices: readonly number[]): Sample[] {
    const bytes = indices.reduce((sum, index) => sum + this.file.lengthOf(index), 0);
    return this.parts.tokenizer.watched(bytes, () => indices.map((index) => this.sample(index)));
  }

  private sample(index: number): Sample {
    const { encoder, limit, fields } = this.parts;
    return this.file.at(index, (row) => ({
      texts: encoder.encode(row, limit),
      label: fields.label === undefined ? undefined : fieldOf(row, fields.label),
    }));
  }

  private specs(): Map<string, SampleSpec> {
    const { inputs, tokenizer, fields, request, labels } = this.parts;
    const lead = request.labelKind === 'pairs' ? [fields.texts.length] : [];
    const shape = [...lead, inputs.length ?? this.usualLength()];
    const varies = inputs.length === undefined;
    const last = { ids: tokenizer.lastId, mask: 1, types: 1, positions: this.parts.limit - 1 };
    const specs = new Map<string, SampleSpec>();
    for (const { name, dtype, role } of inputs.sequences) {
      specs.set(name, { dtype, shape, varies, range: [0, last[role]] });
    }
    for (const { name, dtype, shape: empty } of inputs.past) {
      specs.set(name, { dtype, shape: empty, range: [0, 0] });
    }
    if (labels) specs.set(labels.key, labels.spec);
    if (request.labelKind === 'tokens') {
      specs.set(TOKEN_LABELS, { dtype: 'int64', shape, varies, range: [0, tokenizer.lastId] });
    }
    return specs;
  }

  /** The mean over some samples from all over the file. */
  private usualLength(): number {
    const count = Math.min(PROBES, this.size);
    const probes = Array.from({ length: count }, (_, i) => Math.floor((i * this.size) / count));
    const texts = this.samples(probes).flatMap((sample) => sample.texts);
    const total = texts.reduce((sum, { ids }) => sum + ids.length, 0);
    return Math.max(1, Math.round(total / texts.length));
  }
}
