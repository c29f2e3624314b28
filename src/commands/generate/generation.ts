/** One answer: token after token until something ends it. */
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../../errors.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { Decoder } from './decoder.js';
import type { ResolvedSampling } from './options.js';
import { sampler } from './sampling.js';
import { StopStrings } from './stop-strings.js';
import { type Decoder as TextDecoder, TextStream } from './text-stream.js';

/** `eos`: an end token; `stop`: a stop string; `length`: maxNewTokens; `context`: no more positions. */
export type Finish = 'eos' | 'stop' | 'length' | 'context';

/** An answer and what is known of it. */
export interface Generation {
  /** The text, without the prompt. */
  readonly text: string;
  /** The reason for its end. */
  readonly finish: Finish;
  /** Numbers of tokens. */
  readonly tokens: {
    /** Of the prompt. */
    readonly prompt: number;
    /** Of the answer. */
    readonly generated: number;
  };
  /** The tokens of the answer, the end token included. */
  readonly ids: readonly number[];
  /** Time for the answer, without opening the model. */
  readonly seconds: number;
  /** The time from the start to the first token, which the prompt takes. */
  readonly firstTokenSeconds: number;
  /** Of those after the first one; null where there are none. */
  readonly tokensPerSecond: number | null;
}

export interface GenerationRequest extends WorkOptions {
  readonly prompt: readonly number[];
  readonly sampling: ResolvedSampling;
  /** Tokens that end the answer. */
  readonly eos: ReadonlySet<number>;
  /** Most tokens of prompt and answer. */
  readonly context: number;
  /** Numbers the answers of one seed. */
  readonly turn: number;
}

/**
 * Generates an answer.
 * @yields its text in pieces of whole characters
 * @throws OnnxLoraError `runtime`, `diverged` for a model that gives NaN, `aborted`
 */
export async function* generation(
  decoder: Decoder,
  text: TextDecoder,
  { prompt, sampling, eos, context, turn, signal, onProgress }: GenerationRequest,
): AsyncGenerator<string, Generation> {
  const start = performance.now();
  const choose = sampler(sampling, turn);
  const [stream, stops] = [new TextStream(text, prompt), new StopStrings(sampling.stop ?? [])];
  const most = Math.min(sampling.maxNewTokens, context - prompt.length);
  let finish: Finish = most < sampling.maxNewTokens ? 'context' : 'length';
  let [answer, first] = ['', start];
  const ids: number[] = [];
  while (ids.length < most) {
    // Signals and keys get their turn, for a run blocks the thread.
    await setImmediate();
    if (signal?.aborted)
      throw new OnnxLoraError('aborted', `interrupted after ${ids.length} tokens`);
    const all = [...prompt, ...ids];
    const id = choose(await decoder.after(all), all);
    if (ids.push(id) === 1) first = performance.now();
    onProgress?.({ phase: 'generating', done: ids.length, total: most, unit: 'tokens' });
    if (eos.has(id)) {
      finish = 'eos';
      break;
    }
    const piece = stops.push(stream.push(id));
    answer += piece;
    if (piece !== '') yield piece;
    if (stops.stopped) {
      finish = 'stop';
      break;
    }
  }
  const rest = stops.push(stream.end()) + stops.end();
  answer += rest;
  if (rest !== '') yield rest;
  return { text: answer, finish, ...measured(prompt, ids, start, first) };
}

function measured(prompt: readonly number[], ids: readonly number[], start: number, first: number) {
  const now = performance.now();
  const later = ids.length - 1;
  return {
    tokens: { prompt: prompt.length, generated: ids.length },
    ...{ ids, seconds: (now - start) / 1000, firstTokenSeconds: (first - start) / 1000 },
    tokensPerSecond: later > 0 ? later / ((now - first) / 1000) : null,
  };
}
