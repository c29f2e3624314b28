/** The model that trains, as one that writes: in a session of its own, which takes the adapters as they are by then. */
import type { OpenedModel } from '../../adapters/model/opened.js';
import { TextTokenizer } from '../../data/text/tokenizer.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { loadGraph } from '../../graph/load.js';
import { collect } from '../../onnx/edit.js';
import { folderOf } from '../../runtime/runnable-form.js';
import { type OpenSessionOptions, openSession, type Session } from '../../runtime/session.js';
import type { Feeds } from '../../runtime/tensor-value.js';
import type { ForwardGraph } from '../../training/forward.js';
import type { Writing } from '../../training/loop.js';
import { readFromVector, sizeOf } from '../../training/parameters.js';
import type { WrittenSample } from '../../training/records.js';
import { Answers } from '../generate/answers.js';
import { Decoder, type Runner } from '../generate/decoder.js';
import { tokenizerBeside } from '../generate/generator.js';
import type { ResolvedTrainOptions } from '../options/train.js';

type Options = Pick<
  ResolvedTrainOptions,
  'samplePrompt' | 'sampleTokens' | 'tokenizer' | 'threads' | 'onNote'
>;

/** The model with adapters that change between runs. */
class Adapted implements Runner {
  theta = new Float32Array();

  constructor(
    readonly session: Session,
    private readonly input: string,
  ) {}

  get outputs() {
    return this.session.outputs;
  }

  run(feeds: Feeds) {
    const { theta: data } = this;
    const theta = { dtype: 'float32', dims: [data.length], data } as const;
    return this.session.run(new Map([...feeds, [this.input, theta]]));
  }
}

export class TrainedWriting implements Writing {
  private constructor(
    private readonly model: Adapted,
    private readonly decoder: Decoder,
    private readonly answers: Answers,
    private readonly isChat: boolean,
    private readonly options: Options,
  ) {}

  /**
   * @param isChat whether prompts are messages to answer instead of texts to continue
   * @throws OnnxLoraError `unsupported` for a model that does not continue texts, `file-not-found` where no
   * tokenizer is beside it, `invalid-argument` for messages without a chat template; `runtime`
   */
  static async open(
    { patched, reader }: Pick<OpenedModel, 'patched' | 'reader'>,
    { parameters }: Pick<ForwardGraph, 'parameters'>,
    isChat: boolean,
    options: Options & Pick<OpenSessionOptions, 'provider' | 'optimization'>,
  ): Promise<TrainedWriting> {
    const { model } = patched;
    const path = model.source.label;
    const tokenizer = TextTokenizer.open(options.tokenizer ?? tokenizerBeside(path));
    const graph = loadGraph(model, reader);
    const theta = graph.fresh('theta');
    graph.inputs.push({ name: theta, dtype: 'float32', shape: [sizeOf(parameters)] });
    readFromVector(graph, theta, parameters);
    const session = await opened(graph, folderOf(model), options);
    try {
      const adapted = new Adapted(session, theta);
      const decoder = Decoder.of(model, adapted);
      const answers = new Answers(decoder, tokenizer, path, options);
      if (isChat) answers.requireTemplate();
      return new TrainedWriting(adapted, decoder, answers, isChat, options);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  async write(
    theta: Float32Array<ArrayBuffer>,
    signal?: AbortSignal,
  ): Promise<readonly WrittenSample[]> {
    this.model.theta = theta;
    this.decoder.forget();
    const samples: WrittenSample[] = [];
    for (const prompt of this.options.samplePrompt ?? []) {
      samples.push({ prompt, text: await this.after(prompt, signal) });
    }
    return samples;
  }

  release(): Promise<void> {
    return this.model.session.release();
  }

  private async after(prompt: string, signal: AbortSignal | undefined): Promise<string> {
    const asked = this.isChat ? [{ role: 'user', content: prompt }] : prompt;
    const how = { maxNewTokens: this.options.sampleTokens, signal };
    let text = '';
    for await (const piece of this.answers.stream(asked, how)) text += piece;
    return text;
  }
}

async function opened(
  graph: GraphBuilder,
  externalFolder: string | undefined,
  {
    provider,
    threads,
    optimization,
  }: Pick<OpenSessionOptions, 'provider' | 'threads' | 'optimization'>,
): Promise<Session> {
  const bytes = await collect(graph.modelPieces({}, externalFolder));
  // A cache is empty at first, and WebGPU takes no empty tensors.
  const own = provider === 'webgpu' ? 'cpu' : provider;
  return await openSession(bytes, { provider: own, threads, optimization, externalFolder });
}
