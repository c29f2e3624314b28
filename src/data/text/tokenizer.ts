/** Texts as the numbers of tokens. */
import { createHash } from 'node:crypto';
import { Tokenizer } from '@huggingface/tokenizers';
import { OnnxLoraError } from '../../errors.js';
import { handler, type OptionsOf } from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import { toggle, whole } from '../../options/schemas.js';
import { READ_MS, TimeLimit, withinTime } from '../../time-limit.js';
import { coversAllTexts } from './coverage.js';
import { readTokenizerFiles, type TokenizerFiles } from './tokenizer-files.js';
import { longestFirst } from './truncation.js';

/** A text in tokens. */
export interface Encoding {
  /** Numbers of the tokens. */
  readonly ids: readonly number[];
  /** 0 for the first text and what goes with it, 1 for the second. */
  readonly types: readonly number[];
}

const encodeOptions = {
  /** Most tokens, special ones included. */
  maxLength: handler(whole(0)),
  /** Whether the tokens that the tokenizer puts around texts are wanted; default true. */
  special: handler(toggle, { default: true }),
};

/** Options of turning a text into tokens. */
export interface EncodeOptions extends OptionsOf<typeof encodeOptions> {}

/** Longer than any model takes: tokenizers say so where they do not know. */
const NO_LENGTH = 1e7;

/** Texts of so many characters together take two seconds at most: the slowest tokenizers take 20 ms for 1,000. */
const WATCHED_TOGETHER = 100_000;

/** Of a longer text only a part is tokenized, where that has enough tokens. */
export const LONG_TEXT = 50_000;

/** For shorter ones, which take a second at most, as long as the machine does nothing else. */
const TEXT_MS = 4000;

/** Tokens at the edge of a part may be others in the whole text. */
const EDGE = 64;

/**
 * Turns texts into tokens and back, as a `tokenizer.json` says.
 * @example
 * ```ts
 * import { TextTokenizer } from 'onnx-lora';
 *
 * const tokenizer = TextTokenizer.open('llama');
 * const { ids } = tokenizer.encode(['the model reads its input']);
 * console.log(ids, tokenizer.decode(ids));
 * ```
 */
export class TextTokenizer {
  private isWatched = false;
  /** The token that fills up a shorter text; undefined where the tokenizer has no such token. */
  readonly padId: number | undefined;
  /** The highest number of a token. */
  readonly lastId: number;
  /** Whether every text has tokens: pieces of text without one are unknown, or there are none. */
  readonly coversAll: boolean;
  /** Most tokens that the model was made for, where the tokenizer says so. */
  readonly maxLength: number | undefined;
  /** Of its files, to distinguish it from others. */
  readonly digest: string;

  private constructor(
    private readonly files: TokenizerFiles,
    private readonly tokenizer: Tokenizer,
  ) {
    const { pad_token, eos_token, model_max_length } = files.config;
    const padId = this.idOf(pad_token) ?? storedPadId(files.tokenizer) ?? this.idOf(eos_token);
    this.padId = padId;
    this.lastId = tokenizer.model!.vocab.length - 1;
    const has = (token: string) => this.idOf(token) !== undefined;
    this.coversAll = this.unknownId !== undefined || coversAllTexts(files.tokenizer, has);
    const isKnown = typeof model_max_length === 'number' && model_max_length < NO_LENGTH;
    this.maxLength = isKnown ? model_max_length : undefined;
    const hash = createHash('sha256').update(files.bytes).update(JSON.stringify(files.config));
    this.digest = hash.digest('hex').slice(0, 12);
  }

  /**
   * @param path a `tokenizer.json`, or a folder with one
   * @throws OnnxLoraError `file-not-found`, `not-a-file`, `io`; `invalid-data` for files that are not those of
   * a tokenizer; `unsupported` for a kind that is not known
   */
  static open(path: string): TextTokenizer {
    const files = readTokenizerFiles(path);
    try {
      // Its files may hold values of any type anywhere, and expressions that never end.
      const made = () => new Tokenizer(withAllParts(files.tokenizer), files.config);
      return new TextTokenizer(files, withinTime(READ_MS, made)).tried();
    } catch (error) {
      throw new OnnxLoraError('unsupported', `${files.label}: ${(error as Error).message}`, {
        hint: 'WordPiece, BPE and Unigram tokenizers are read, by @huggingface/tokenizers.',
      });
    }
  }

  /** Its name in messages: the path. */
  get label(): string {
    return this.files.label;
  }

  /** Of `tokenizer_config.json` and `chat_template.jinja`. */
  get config(): TokenizerFiles['config'] {
    return this.files.config;
  }

  /**
   * One text, or a pair. Too long ones are cut: of a pair the longer one first, at the side that the
   * tokenizer names.
   * @throws OnnxLoraError `invalid-argument` naming the option; `invalid-data` for a piece of text without
   * a token
   */
  encode([first, second]: readonly [string, string?], options: EncodeOptions = {}): Encoding {
    const { maxLength, special } = resolveOptions(encodeOptions, options, 'TextTokenizer.encode');
    const isPair = second !== undefined;
    const room = (maxLength ?? Number.POSITIVE_INFINITY) - (special ? this.specials(isPair) : 0);
    // The lengths of both decide on the tokens that are left of a pair.
    const a = isPair ? this.tokensOf(first) : this.enoughOf(first, room);
    const b = isPair ? this.tokensOf(second) : null;
    const [keptA, keptB] = longestFirst(a.length, b?.length ?? 0, Math.max(0, room));
    const { tokens, types } = this.joined(this.cut(a, keptA), b && this.cut(b, keptB), special);
    return { ids: tokens.map((token) => this.known(token)), types };
  }

  /**
   * The text of some tokens without the special ones; numbers that no token has are left out.
   * If a character is split between tokens, its part is U+FFFD.
   */
  decode(ids: readonly number[]): string {
    const vocabulary = this.tokenizer.model!.vocab;
    const known = ids.filter((id) => vocabulary[id] !== undefined);
    if (known.length === 0) return '';
    const spaces = this.config.clean_up_tokenization_spaces === true;
    const how = { skip_special_tokens: true, clean_up_tokenization_spaces: spaces };
    return this.watched(known.length, () => this.tokenizer.decode(known, how));
  }

  /** The number of a token by its exact name; undefined for what is not a single token. */
  tokenId(token: string): number | undefined {
    return this.idOf(token);
  }

  /** Number of tokens that are put around one text, or around a pair. */
  specials(isPair: boolean): number {
    return this.joined([], isPair ? [] : null, true).tokens.length;
  }

  /** The first or the last ones of some tokens, as the tokenizer cuts texts. */
  cut<T>(tokens: readonly T[], kept: number): readonly T[] {
    const isLeft = this.config.truncation_side === 'left';
    return isLeft ? tokens.slice(Math.max(0, tokens.length - kept)) : tokens.slice(0, kept);
  }

  /** Fails where a part of the tokenizer is not valid. */
  private tried(): this {
    this.processed(this.tokensOf('A text.'), null, true);
    return this;
  }

  /**
   * Runs work that encodes texts, and stops it where it takes far longer than such texts do. Short texts of a
   * batch are watched together, because a watch costs as much as one of them.
   * @param characters of the texts
   * @throws OnnxLoraError `invalid-data`
   */
  watched<T>(characters: number, work: () => T): T {
    if (this.isWatched || characters > WATCHED_TOGETHER) return work();
    return this.stopped(characters, work);
  }

  private stopped<T>(characters: number, work: () => T): T {
    this.isWatched = true;
    try {
      return withinTime(characters > LONG_TEXT ? READ_MS : TEXT_MS, work);
    } catch (error) {
      throw error instanceof TimeLimit ? this.cannotEncode(characters, error) : error;
    } finally {
      this.isWatched = false;
    }
  }

  /** The tokens of a text, or of the part of a long one that has `room` tokens and some more. */
  private enoughOf(text: string, room: number): string[] {
    const isLeft = this.config.truncation_side === 'left';
    for (let length = LONG_TEXT; length < text.length; length *= 4) {
      const part = isLeft ? text.slice(text.length - length) : text.slice(0, length);
      const tokens = this.tokensOf(part);
      if (tokens.length < room + EDGE) continue;
      return isLeft ? tokens.slice(EDGE / 2) : tokens.slice(0, -EDGE / 2);
    }
    return this.tokensOf(text);
  }

  private tokensOf(text: string): string[] {
    const tokenize = () => this.tokenizer.tokenize(text);
    try {
      return this.isWatched ? tokenize() : this.stopped(text.length, tokenize);
    } catch (error) {
      throw error instanceof OnnxLoraError ? error : this.cannotEncode(text.length, error);
    }
  }

  private cannotEncode(characters: number, error: unknown): OnnxLoraError {
    const { message } = error as Error;
    return new OnnxLoraError(
      'invalid-data',
      `${this.label}: a text of ${characters} characters cannot be tokenized: ${message}`,
      {
        hint: 'Cut long texts into several rows: a model sees no more of each than its `maxLength`. Short ones need another tokenizer.',
        cause: error,
      },
    );
  }

  private joined(a: readonly string[], b: readonly string[] | null, special: boolean) {
    try {
      return this.processed(a, b, special);
    } catch (error) {
      const what = b ? 'pairs of texts' : 'texts';
      const problem = `${this.label}: its post_processor fails on ${what}: ${(error as Error).message}`;
      throw new OnnxLoraError('unsupported', problem, { cause: error });
    }
  }

  private processed(a: readonly string[], b: readonly string[] | null, special: boolean) {
    const made = this.tokenizer.post_processor?.([...a], b && [...b], special) ?? {
      tokens: a,
      tokens_pair: b,
    };
    // Processors that know of no pairs leave them apart.
    const pair = made.tokens_pair ?? [];
    const tokens = [...made.tokens, ...pair];
    const types = [
      ...(('token_type_ids' in made && made.token_type_ids) || made.tokens.map(() => 0)),
      ...pair.map(() => 1),
    ];
    return { tokens, types };
  }

  private idOf(token: string | null | undefined): number | undefined {
    return typeof token === 'string' ? this.tokenizer.token_to_id(token) : undefined;
  }

  private get unknownId(): number | undefined {
    const id = this.tokenizer.model!.unk_token_id;
    return typeof id === 'number' && id >= 0 ? id : undefined;
  }

  private known(token: string): number {
    const id = this.idOf(token) ?? this.unknownId;
    if (id !== undefined) return id;
    throw new OnnxLoraError(
      'invalid-data',
      `${this.label}: ${JSON.stringify(token)} is in none of its tokens, and it has none for what is unknown`,
      { hint: 'Leave such texts out, or use a tokenizer that covers them (byte-level BPE does).' },
    );
  }
}

/** Parts may be left out of the file, the library wants them said. */
function withAllParts(tokenizer: object): object {
  const none = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  return { ...none, added_tokens: [], ...tokenizer };
}

function storedPadId(tokenizer: object): number | undefined {
  const { padding } = tokenizer as { padding?: { pad_id?: unknown } | null };
  return typeof padding?.pad_id === 'number' ? padding.pad_id : undefined;
}
