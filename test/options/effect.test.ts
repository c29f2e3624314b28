/** In each run, the options that have an effect; all others of its command are refused in it. */
import { describe, expect, test } from 'vitest';
import { commands } from '../../cli/commands/index.js';
import { commonTable } from '../../cli/common-options.js';
import { OnnxLoraError } from '../../src/errors.js';
import { type Flag, isFlag, type OptionTable } from '../../src/options/option.js';
import { resolveOptions } from '../../src/options/resolve.js';
import { shapeOf } from '../../src/options/schemas.js';
import type { LossName } from '../../src/training/losses/index.js';

const folder = import.meta.dirname;
const layers = 'targets exclude layers';
const shapes = 'rank structure kind alpha scaling hybrid rankPattern structurePattern alphaPattern';
const fresh = `${layers} ${shapes} perNode parts name output force verbose`;
const checked = 'tolerance samples provider seed';
const pixels = 'imageSize mean std processor fit resample channels';
const texts = 'tokenizer textField maxLength truncate';
const rows = `skipBadRows ${texts} imageField ${pixels}`;
const gradient = 'modelOutput guard batches batchSize threads provider';
const peft = 'peftType peftRank peftPrefix baseModel';
const step = `modelOutput name head trainBias batchSize accumulate optimizer lrRatio clip dropout
  lossScale guard force threads seed`;
const adamw = 'weightDecay betas eps';
const run = `${step} evalData shuffle epochs steps lr schedule warmup checkpoint output saveAdapter log
  plot tensorboard report provider verbose emitStepGraph samplePrompt`;
const measured = 'modelOutput batchSize expect guard html provider threads verbose';
const answer = `compare tokenizer adapter eos cache guard provider threads maxNewTokens temperature
  repetitionPenalty stop`;
const fold = 'adapter name scale quantized to output force';
const fitted = `${layers} structure rank budget error name includeRest allowEmpty format force seed`;

/** A list without some of its words. */
function but(list: string, without: string): string {
  const out = wordsOf(without);
  return wordsOf(list)
    .filter((word) => !out.includes(word))
    .join(' ');
}

function wordsOf(list: string): string[] {
  return list.split(/\s+/).filter(Boolean);
}

/** The options of each loss, those for training alone, and how the labels of its rows are found. */
const losses: Readonly<Record<LossName, readonly [own: string, training: string, labels: string]>> =
  {
    'cross-entropy': [
      'ignoreIndex classWeights',
      'labelSmoothing',
      'labelField labels textPairField',
    ],
    'causal-lm': ['ignoreIndex classWeights', 'labelSmoothing', ''],
    mse: ['', '', 'labelField textPairField'],
    bce: ['posWeight', 'labelSmoothing', 'labelField labels textPairField'],
    ctc: ['blank', '', 'labelField dictionary textPairField'],
    mnr: ['scale', '', 'textPairField textNegativeField'],
    kl: ['ignoreIndex', 'temperature', 'labelField textPairField'],
    focal: [
      'ignoreIndex classWeights focalGamma',
      'labelSmoothing',
      'labelField labels textPairField',
    ],
  };

/** Data of every kind with every loss, for a command that computes one. */
function runsOnData(command: string, given: object, usual: string): Run[] {
  return Object.entries(losses).flatMap(([loss, [all, training, labels]]): Run[] => {
    // A fold has a scale of its own.
    const own = command === 'merge' ? but(all, 'scale') : all;
    const list = `${usual} ${own} ${command === 'train' ? training : ''}`;
    const onArrays = loss === 'ctc' ? `${list} skipBadRows` : list;
    const ofFolder = but(labels, 'labelField textPairField textNegativeField');
    return [
      [command, { ...given, data: 'a.npz', loss }, onArrays],
      [command, { ...given, data: 'a.csv', loss }, `${list} ${rows} ${labels}`],
      [command, { ...given, data: folder, loss }, `${list} skipBadRows ${pixels} ${ofFolder}`],
    ];
  });
}

/** A command, what is given, and what has an effect beside it. */
type Run = readonly [command: string, given: object, effective: string];

const runs: readonly Run[] = [
  // No gradient goes through a new head, which the model refuses with that reason.
  ...runsOnData('patch', { init: 'gradient' }, `${fresh} blocks head verify seed ${gradient}`),
  ...runsOnData('train', {}, `${run} ${adamw}`),
  [
    'train',
    { data: 'a.npz', loss: 'mse', samplePrompt: ['a'] },
    but(`${run} ${adamw} tokenizer sampleEvery sampleTokens`, 'emitStepGraph'),
  ],
  ...runsOnData('eval', {}, measured),
  ...runsOnData(
    'merge',
    {},
    `scale quantized to verify ${checked} output force modelOutput batchSize`,
  ),
  ...runsOnData('advise', {}, `${layers} rank budget writeConfig seed verbose ${gradient}`),
  ['inspect', {}, 'html why'],
  ['inspect', { html: 'a.html' }, 'force why'],
  ['inspect', { json: true }, 'html'],
  ['patch', {}, `${fresh} blocks init head adapter slots verify seed`],
  ['patch', { structure: 'global' }, `${fresh} init head verify seed`],
  ['patch', { structure: 'auto' }, `${fresh} init head verify seed`],
  [
    'patch',
    { structure: 'global', structurePattern: ['a=diagonal'] },
    `${fresh} blocks init head verify seed`,
  ],
  ['patch', { init: 'zero' }, `${fresh} blocks head verify`],
  ['patch', { init: 'zero', head: 'linear:2' }, `${fresh} blocks modelOutput verify seed`],
  ['patch', { head: 'linear:2' }, `${fresh} blocks init modelOutput verify seed`],
  ['patch', { verify: true }, `${fresh} blocks init head slots samples provider seed`],
  ['patch', { slots: true }, `${layers} perNode verify output force verbose`],
  [
    'patch',
    { slots: true, verify: true },
    `${layers} perNode samples provider seed output force verbose`,
  ],
  ['patch', { adapter: 'a.safetensors' }, 'name peftPrefix allowUnmatched output force'],
  ['unpatch', {}, 'name output force'],
  [
    'train',
    { data: 'a.npz', loss: 'mse', evalData: 'b.csv' },
    but(
      `${run} ${adamw} ${rows} labelField textPairField evalEvery earlyStop keepBest`,
      'emitStepGraph',
    ),
  ],
  [
    'train',
    { data: 'a.npz', loss: 'mse', steps: 3 },
    but(`${run} ${adamw}`, 'epochs emitStepGraph'),
  ],
  [
    'train',
    { data: 'a.npz', loss: 'mse', checkpoint: 'a' },
    but(`${run} ${adamw} checkpointEvery resume`, 'emitStepGraph'),
  ],
  ['train', { data: 'a.npz', loss: 'mse', optimizer: 'sgd' }, `${run} weightDecay momentum`],
  [
    'train',
    { data: 'a.npz', loss: 'mse', shuffle: false },
    but(`${run} ${adamw}`, 'seed emitStepGraph'),
  ],
  ['train', { data: 'a.npz', loss: 'mse', emitStepGraph: 'a.onnx' }, `${step} ${adamw}`],
  [
    'train',
    { data: 'a.npz', loss: 'mse', emitStepGraph: 'a.onnx', guard: false },
    but(`${step} ${adamw}`, 'threads seed'),
  ],
  ['eval', { data: 'a.npz', loss: 'mse', html: 'a.html' }, `${measured} force`],
  ['eval', { data: 'a.npz', loss: 'mse', guard: false }, but(measured, 'verbose')],
  ['generate', { prompt: 'a' }, `${answer} chat`],
  ['generate', { prompt: 'a', temperature: 1 }, `${answer} chat topK topP seed`],
  ['generate', { chat: true }, `${answer} prompt system`],
  ['merge', {}, `${fold} verify ${checked}`],
  ['merge', { verify: false }, fold],
  ['merge', { samples: 'a.safetensors' }, `${fold} tolerance provider`],
  ['merge', { adapter: 'a' }, `${but(fold, 'name')} peftPrefix allowUnmatched verify ${checked}`],
  ['merge', { to: 'q4' }, `${but(fold, 'quantized')} symmetric verify ${checked}`],
  [
    'merge',
    { data: 'a.npz', loss: 'mse', verify: false },
    'scale quantized to output force modelOutput batchSize provider',
  ],
  ['extract', { output: 'a.safetensors' }, 'name format force'],
  ['extract', { output: 'a.onnx_adapter' }, 'name format force'],
  ['extract', { output: folder }, `name format force ${peft}`],
  ['extract', { output: 'a.safetensors', format: 'peft' }, `name force ${peft}`],
  ['apply', {}, 'name format peftPrefix allowUnmatched output force'],
  ['combine', { output: 'a.safetensors' }, 'weights method name format force'],
  [
    'combine',
    { output: 'a/', method: 'dare' },
    `weights density rank structure seed name format force ${peft}`,
  ],
  [
    'combine',
    { output: 'a/', method: 'svd', structure: 'diagonal' },
    `weights rank blocks name format force ${peft}`,
  ],
  ['fit', { output: 'a.safetensors' }, `${fitted} blocks`],
  ['fit', { output: 'a/', structure: 'global' }, `${fitted} ${peft}`],
  ['advise', {}, `${layers} tuned rank budget writeConfig seed verbose`],
  ['advise', { tuned: 'a.onnx' }, `${layers} rank budget writeConfig seed verbose`],
  ['advise', { writeConfig: 'a.json' }, `${layers} tuned rank budget force seed verbose`],
];

/** A value that the option takes, and that is not its default. */
function sampleOf(key: string, { schema, default: usual }: Flag): unknown {
  const { kind, choices, many } = shapeOf(schema);
  const values = {
    boolean: !(usual ?? false),
    text: choices?.findLast((name) => name !== usual) ?? (key === 'lossScale' ? '1024' : 'a'),
    path: 'a',
    whole: 2,
    number: 0.5,
    other: undefined,
  };
  const one = values[kind];
  return many === undefined ? one : Array.from({ length: many === true ? 1 : many }, () => one);
}

function tableOf(name: string): OptionTable {
  return commands.find((command) => command.name === name)!.table;
}

function flagsOf(name: string): (readonly [string, Flag])[] {
  const all = Object.entries(tableOf(name));
  return all.flatMap(([key, option]) => (isFlag(option) ? [[key, option] as const] : []));
}

/** The refusal of an option beside others. */
function refusal(name: string, given: object): OnnxLoraError | undefined {
  try {
    resolveOptions({ ...tableOf(name), ...commonTable }, given as never, name);
    return undefined;
  } catch (error) {
    return error as OnnxLoraError;
  }
}

describe('an option', () => {
  test.each(runs)('of %s %j has an effect or is refused', (name, given, list) => {
    expect(refusal(name, given)).toBeUndefined();
    const effective: string[] = [];
    for (const [key, flag] of flagsOf(name)) {
      if (key in given) continue;
      const error = refusal(name, { ...given, [key]: sampleOf(key, flag) });
      if (!error) effective.push(key);
      else expect(error).toBeInstanceOf(OnnxLoraError);
      if (error)
        expect([key, error.code, typeof error.hint]).toEqual([key, 'invalid-argument', 'string']);
    }
    const expected = wordsOf(list).filter((key) => !(key in given));
    expect(effective.sort()).toEqual(expected.sort());
  });

  test.each(commands.map(({ name }) => name))('of %s has an effect in one of the runs', (name) => {
    const own = runs.filter(([command]) => command === name);
    const effective = new Set(
      own.flatMap(([, given, list]) => [...Object.keys(given), ...wordsOf(list)]),
    );
    const idle = flagsOf(name).filter(([key]) => !effective.has(key));
    expect(idle.map(([key]) => key)).toEqual([]);
  });
});
