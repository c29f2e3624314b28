import type { Answer, GenerateResult } from '../../src/commands/generate/generate.js';
import type { Finish, Generation } from '../../src/commands/generate/generation.js';
import type { CompleteOptions, TextGenerator } from '../../src/commands/generate/generator.js';
import {
  generatorOptions,
  promptOptions,
  samplingOptions,
} from '../../src/commands/generate/options.js';
import type { Message } from '../../src/data/text/messages.js';
import { OnnxLoraError } from '../../src/errors.js';
import { option } from '../../src/options/option.js';
import { text, toggle } from '../../src/options/schemas.js';
import type { ChatPartner, Turn } from '../chat.js';
import { type Arguments, defineCommand } from '../command.js';
import { sideBySide } from '../side-by-side.js';
import { plural, printable, printableText } from '../text.js';
import type { Ui } from '../ui.js';

const positionals = {
  model: {
    value: 'MODEL',
    summary: 'a decoder: base, patched, with slots, or merged; a file or a folder',
  },
} as const;

const options = {
  ...promptOptions,
  chat: option(toggle, {
    group: 'Prompt',
    summary:
      "a conversation by the tokenizer's chat template: on a terminal, or by the lines of standard input",
    example: '--chat',
  }),
  system: option(text, {
    group: 'Prompt',
    value: 'TEXT',
    needs: ['chat'],
    summary: 'the first message, which says how to answer',
    example: '--chat --system "Answer in one sentence."',
  }),
  ...generatorOptions,
  ...samplingOptions,
};

type Given = Arguments<typeof positionals, typeof options>;

export const generateCommand = defineCommand({
  name: 'generate',
  summary: 'let a language model continue a text, or talk to it',
  description:
    'Takes decoders exported for text generation, with a key-value cache or without. The answer comes token by token on standard output, what is told about it on standard error.',
  positionals,
  options,
  examples: [
    {
      command: 'onnx-lora generate llama.onnx --tokenizer llama/ --prompt "Once upon"',
      summary: 'the likeliest continuation',
    },
    {
      command: 'onnx-lora generate llama.onnx --tokenizer llama/ --chat --temperature 0.7',
      summary: 'a conversation; /reset begins anew, /quit ends',
    },
    {
      command:
        'onnx-lora generate tuned.onnx --tokenizer llama/ --prompt "Once" --compare llama.onnx',
      summary: 'what the tuned model says, and what its base does',
    },
  ],
  readOnly: true,
  run: (args, ui) => (args.chat && args.prompt === undefined ? converse(args, ui) : once(args, ui)),
});

/** One prompt, one answer. */
async function once(args: Given, ui: Ui) {
  const { generate, pick } = await import('../../src/commands/generate/generate.js');
  const { model, prompt, chat, system, compare } = args;
  if (prompt === undefined) {
    throw usage('generate needs `prompt` or `chat`', 'For example: --prompt "Once upon a time"');
  }
  const streams = !ui.isJson && compare === undefined;
  const result = await generate(model, {
    ...{ ...pick(generatorOptions, args), ...pick(samplingOptions, args), compare },
    ...(chat ? { messages: opened(system, prompt) } : { prompt }),
    ...{ signal: ui.work.signal, onNote: ui.note },
    ...(streams
      ? { onToken: writerFor(ui, chat ? '' : prompt) }
      : { onProgress: ui.work.onProgress }),
  });
  ui.stop();
  if (streams) process.stdout.write('\n');
  ui.note(factsOf(result));
  const { comparison } = result;
  if (comparison) ui.note(`${comparison.model}: ${factsOf(comparison)}`);
  return { result, text: () => (streams ? '' : answersText(result, ui)) };
}

function opened(system: string | undefined, user: string): readonly Message[] {
  const opening = system === undefined ? [] : [{ role: 'system', content: system }];
  return [...opening, { role: 'user', content: user }];
}

/** Writes pieces of an answer; on a terminal after what they continue. */
function writerFor({ width, colors }: Ui, prompt: string): (piece: string) => void {
  const isTerminal = width !== undefined;
  let isFirst = true;
  return (piece) => {
    if (isTerminal && isFirst) process.stdout.write(colors.dim(printableText(prompt)));
    isFirst = false;
    process.stdout.write(isTerminal ? printableText(piece) : piece);
  };
}

function answersText(result: GenerateResult, { width, colors }: Ui): string {
  const { comparison } = result;
  if (!comparison) return `${result.text}\n`;
  return sideBySide(titled(result), titled(comparison), { width, heading: colors.bold });
}

function titled({ model, adapter, text }: Answer) {
  return { title: adapter === undefined ? model : `${model}, ${adapter}`, text };
}

const ENDINGS: Readonly<Record<Finish, string>> = {
  eos: 'ended by the model',
  stop: 'ended by a stop text',
  length: 'ended by --max-new-tokens',
  context: 'ended where the model has no more positions',
};

function factsOf({ tokens, seconds, tokensPerSecond, finish, cache }: Answer): string {
  const speed = tokensPerSecond === null ? '' : `, ${tokensPerSecond.toPrecision(3)} tokens/s`;
  const how = cache ? '' : ' without a cache';
  return `${plural(tokens.generated, 'token')} in ${seconds.toFixed(1)} s${speed}${how}, ${ENDINGS[finish]}`;
}

/** A conversation. */
async function converse(args: Given, ui: Ui) {
  const [{ TextGenerator }, { answerWith, pick }, { chat }] = await Promise.all([
    import('../../src/commands/generate/generator.js'),
    import('../../src/commands/generate/generate.js'),
    import('../chat.js'),
  ]);
  const { model, system, compare } = args;
  const how = { ...pick(generatorOptions, args), onNote: ui.note };
  const sampling = pick(samplingOptions, args);
  const generator = await TextGenerator.open(model, how);
  const other = { ...how, adapter: undefined };
  const base = compare === undefined ? undefined : await TextGenerator.open(compare, other);
  const answered = (by: TextGenerator, { ids: _, ...found }: Generation) =>
    answerWith(by === base ? compare! : model, by, found);
  const partner = partnerOf({ generator, base, answered }, sampling, ui);
  try {
    generator.requireChat();
    const { stdin: input, stdout: output } = process;
    const streamsOfChat = { input, output, note: ui.note, spelling: ui.spelling };
    const turns: readonly Turn[] = await chat(partner, system, ui.work.signal!, streamsOfChat);
    const { provider } = generator;
    return { result: { model: printable(model), turns, provider }, text: () => '' };
  } finally {
    await generator.release();
    await base?.release();
  }
}

interface Speakers {
  readonly generator: TextGenerator;
  /** The model to compare with. */
  readonly base: TextGenerator | undefined;
  /** A text with what is told about it. */
  answered(by: TextGenerator, found: Generation): Answer;
}

/** Answers by one model, token by token, or by two, side by side. */
function partnerOf(
  { generator, base, answered }: Speakers,
  sampling: CompleteOptions,
  ui: Ui,
): ChatPartner {
  const streams = !ui.isJson && base === undefined;
  return {
    get adapters() {
      return generator.adapters;
    },
    get adapter() {
      return generator.adapter;
    },
    use: (name) => generator.use(name),
    async answer(messages, signal) {
      const onText = streams ? writerFor(ui, '') : undefined;
      const how = { ...sampling, signal };
      const answer = answered(generator, await generator.complete(messages, { ...how, onText }));
      if (streams) process.stdout.write('\n');
      if (!base) return { answer };
      const comparison = answered(base, await base.complete(messages, how));
      const style = { width: ui.width, heading: ui.colors.bold };
      if (!ui.isJson) process.stdout.write(sideBySide(titled(answer), titled(comparison), style));
      return { answer, comparison };
    },
  };
}

function usage(message: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint });
}
