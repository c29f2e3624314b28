/** The files of a tokenizer, as the Hugging Face hub has them. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { OnnxLoraError } from '../../errors.js';
import { kindOf } from '../../formats/path-kind.js';
import { readWholeFile } from '../../formats/whole-file.js';

const token = v.union([
  v.string(),
  v.pipe(
    v.looseObject({ content: v.string() }),
    v.transform(({ content }) => content),
  ),
]);
const special = v.optional(v.nullable(token));

const templateEntries = v.looseObject({
  /** `default`, or what it is for: `tool_use`, for example. */
  name: v.string(),
  /** Jinja. */
  template: v.string(),
});

/** One of several chat templates of a tokenizer. */
export interface ChatTemplate extends v.InferOutput<typeof templateEntries> {}
const chatTemplate: v.GenericSchema<unknown, ChatTemplate> = templateEntries;

const config = v.looseObject({
  /** Beginning of a text. */
  bos_token: special,
  /** End of a text. */
  eos_token: special,
  /** Fills up shorter texts of a batch. */
  pad_token: special,
  /** Stands for what the vocabulary does not have. */
  unk_token: special,
  /** First token of a text for classification. */
  cls_token: special,
  /** Between two texts. */
  sep_token: special,
  /** A number beyond all lengths, where the limit was not known. */
  model_max_length: v.optional(v.nullable(v.number())),
  /** The side on which texts that are too long lose tokens. */
  truncation_side: v.optional(v.picklist(['left', 'right'])),
  /** Jinja that makes one text of messages; several have names. */
  chat_template: v.optional(v.nullable(v.union([v.string(), v.array(chatTemplate)]))),
});

/** `tokenizer_config.json` as far as it is read here; special tokens are plain strings. */
export interface TokenizerConfig extends v.InferOutput<typeof config> {}

/** The files of a tokenizer, read. */
export interface TokenizerFiles {
  /** Of `tokenizer.json`, in the form of the tokenizers library. */
  readonly tokenizer: object;
  /** Of `tokenizer_config.json` and `chat_template.jinja`; empty without them. */
  readonly config: TokenizerConfig;
  /** Its name in messages: the path of `tokenizer.json`. */
  readonly label: string;
  /** Of `tokenizer.json`. */
  readonly bytes: Uint8Array;
}

const TOKENIZER = 'tokenizer.json';

/** A vocabulary of 260,000 tokens with its merges takes 35 MB. As JSON values it takes up to twenty times as much. */
const MAX_TOKENIZER_BYTES = 2 ** 26;

/** A config lists added tokens, some thousand at most. */
const MAX_CONFIG_BYTES = 2 ** 24;

/**
 * Reads a `tokenizer.json`, or the one of a folder, with what lies beside it: `tokenizer_config.json`
 * and `chat_template.jinja`.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `io`; `invalid-data` for other files
 * of a tokenizer, or longer than one
 */
export function readTokenizerFiles(path: string): TokenizerFiles {
  const isFolder = kindOf(path) === 'folder';
  const label = isFolder ? join(path, TOKENIZER) : path;
  if (isFolder && !existsSync(label)) throw noTokenizer(path);
  const folder = dirname(label);
  const bytes = readWholeFile(label, MAX_TOKENIZER_BYTES);
  const tokenizer = parse(v.looseObject({ model: v.looseObject({}) }), bytes, label);
  const stored = readIfThere(join(folder, 'tokenizer_config.json'));
  const settings = stored ? parse(config, stored.bytes, stored.path) : {};
  const jinja = readIfThere(join(folder, 'chat_template.jinja'));
  const chat = jinja ? { chat_template: Buffer.from(jinja.bytes).toString() } : {};
  return { tokenizer, config: { ...settings, ...chat }, label, bytes };
}

function readIfThere(path: string) {
  return existsSync(path) ? { path, bytes: readWholeFile(path, MAX_CONFIG_BYTES) } : undefined;
}

function parse<T>(schema: v.GenericSchema<unknown, T>, bytes: Uint8Array, path: string): T {
  const result = v.safeParse(schema, parseJson(bytes, path));
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw invalid(path, `${v.getDotPath(issue) ?? 'the file'}: ${issue.message}`);
}

function parseJson(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch (error) {
    throw invalid(path, (error as Error).message);
  }
}

function invalid(path: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${path} is not a tokenizer's file: ${problem}`, {
    hint: `Give the ${TOKENIZER} of a fast tokenizer, as tokenizer.save_pretrained() writes it.`,
  });
}

function noTokenizer(folder: string): OnnxLoraError {
  return new OnnxLoraError('file-not-found', `${folder} holds no ${TOKENIZER}`, {
    hint: `Write one with AutoTokenizer.from_pretrained("${folder}").save_pretrained("${folder}") of transformers.`,
  });
}
