/**
 * Networks that know the digits 0 to 4 learn 5 to 9 through adapters of each structure, at equal
 * parameters. The head takes the same plain adapter in every run: its 10 outputs have no grid of 4.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AdapterOptions } from '../../src/adapters/edit/new-adapters.js';
import type { StructureName } from '../../src/adapters/structure/structure.js';
import { type AdviseResult, advise } from '../../src/commands/advise.js';
import { evaluate } from '../../src/commands/evaluate.js';
import { merge } from '../../src/commands/merge.js';
import { resolveTrainOptions, type TrainOptions } from '../../src/commands/options/train.js';
import { patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { collect } from '../../src/onnx/edit.js';
import { generatorFor } from '../../src/random.js';
import { baseDigits, newDigits, writeDigits } from './digits.js';
import type { Classifier } from './models.js';

export const BLOCKS = 4;
export const ranks = [4, 8, 16];
/** Advice is asked for at this rank. */
export const ADVICE_RANK = 8;
export const seeds = [1, 2, 3, 4, 5];
export const structures: readonly StructureName[] = ['global', 'diagonal', 'localized'];
export const learningRates = [1e-3, 3e-3, 1e-2, 3e-2];

/** Images of each digit, by what they are for. */
const counts = { train: 100, validation: 100, test: 400 };
const EPOCHS = 10;

export interface Arm {
  /** `full` trains every weight: what no adapter is expected to surpass. */
  readonly method: StructureName | 'full';
  readonly rank: number;
}

export interface Outcome extends Arm {
  readonly seed: number;
  readonly parameters: number;
  /** Of the learning rates the one with the lowest validation loss. */
  readonly lr: number;
  /** On the test images. */
  readonly accuracy: number;
  readonly loss: number;
}

export interface Adaptation {
  readonly classifier: string;
  /** Accuracy of the bases on the digits that they learned. */
  readonly base: readonly number[];
  readonly outcomes: readonly Outcome[];
  /** What `advise` says of each seed beforehand, and of what full training did. */
  readonly advice: readonly { readonly gradient: Advised; readonly tuned: Advised }[];
}

/** The best share that each structure captures at rank 8, over all layers. */
export type Advised = Readonly<Record<StructureName, number>>;

const arms: readonly Arm[] = [
  { method: 'full', rank: 0 },
  ...ranks.flatMap((rank) => structures.map((method) => ({ method, rank }))),
];

/** All runs of one classifier. */
export async function adapt(
  classifier: Classifier,
  say: (text: string) => void,
): Promise<Adaptation> {
  const outcomes: Outcome[] = [];
  const base: number[] = [];
  const advice: Adaptation['advice'][number][] = [];
  for (const seed of seeds) {
    await inFolder(async (folder) => {
      const bench = await Bench.prepare(folder, classifier, seed);
      base.push(bench.accuracy);
      for (const arm of arms) outcomes.push(await bench.run(arm));
      advice.push(await bench.advice());
    });
    say(`${classifier.name}: seed ${seed} of ${seeds.length} done`);
  }
  return { classifier: classifier.name, base, outcomes, advice };
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-paper-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A base that knows its digits, and data of the others, in a folder. */
class Bench {
  /** The base with every weight trained. */
  private tuned = '';

  private constructor(
    private readonly folder: string,
    private readonly classifier: Classifier,
    private readonly seed: number,
    readonly base: string,
    /** Of the base on the digits that it learned. */
    readonly accuracy: number,
  ) {}

  static async prepare(folder: string, classifier: Classifier, seed: number): Promise<Bench> {
    const file = (name: string) => join(folder, `${name}.safetensors`);
    writeDigits(baseDigits, { [file('base')]: 700, [file('known')]: 200 }, seed);
    const images = Object.entries(counts).map(([name, count]) => [file(name), count]);
    writeDigits(newDigits, Object.fromEntries(images), seed);
    const fresh = join(folder, 'fresh.onnx');
    const graph = classifier.build(generatorFor(seed, 'weights', classifier.name));
    writeFileSync(fresh, await collect(graph.modelPieces()));
    const training = { data: file('base'), lr: 1e-3, epochs: 3, seed };
    const base = await trained(folder, 'base.onnx', fresh, everyWeight(classifier, seed), training);
    const { accuracy } = await evaluate(base.merged, { data: file('known'), ...classification });
    return new Bench(folder, classifier, seed, base.merged, accuracy!);
  }

  /** Trains with each learning rate, and tests what the validation images like best. */
  async run(arm: Arm): Promise<Outcome> {
    const { classifier, seed, base } = this;
    const adapters = arm.method === 'full' ? everyWeight(classifier, seed) : adaptersOf(arm, seed);
    const runs = [];
    for (const lr of learningRates) {
      const name = `${arm.method}-${lr}.onnx`;
      const training = { data: this.file('train'), lr, epochs: EPOCHS, seed };
      const { merged, parameters } = await trained(this.folder, name, base, adapters, training);
      const { loss } = await this.measure(merged, 'validation');
      runs.push({ lr, merged, parameters, loss });
    }
    const { lr, merged, parameters } = runs.reduce((a, b) => (b.loss < a.loss ? b : a));
    const { loss, accuracy } = await this.measure(merged, 'test');
    if (arm.method === 'full') this.tuned = merged;
    return { ...arm, seed, parameters, lr, accuracy: accuracy!, loss };
  }

  /** Advice on the layers that take a grid. */
  async advice(): Promise<Adaptation['advice'][number]> {
    const options = { rank: ADVICE_RANK, exclude: ['head'] };
    const { loss, provider, threads } = classification;
    const data = { data: this.file('train'), loss, provider, threads, batchSize: 50, batches: 10 };
    return {
      gradient: sharesIn(await advise(this.base, { ...options, ...data })),
      tuned: sharesIn(await advise(this.base, { ...options, tuned: this.tuned })),
    };
  }

  private file(name: string): string {
    return join(this.folder, `${name}.safetensors`);
  }

  private measure(model: string, split: 'validation' | 'test') {
    return evaluate(model, { data: this.file(split), ...classification });
  }
}

/** Over all layers, each with the weight of its matrix. */
function sharesIn({ layers }: AdviseResult): Advised {
  const total = layers.reduce((sum, { norm }) => sum + norm ** 2, 0);
  const share = (name: StructureName) =>
    layers.reduce((sum, { norm, scores }) => {
      const own = scores.filter(({ structure, blocks }) => structure === name && blocks <= BLOCKS);
      return sum + (norm ** 2 / total) * Math.max(...own.map((score) => score.share));
    }, 0);
  return Object.fromEntries(structures.map((name) => [name, share(name)])) as Advised;
}

const classification = {
  loss: 'cross-entropy',
  batchSize: 100,
  provider: 'cpu',
  // More threads have nothing to do in networks this small.
  threads: 1,
} as const;

/** Plain adapters of full rank: together with their biases they reach every weight. */
function everyWeight({ fullRank }: Classifier, seed: number): AdapterOptions {
  return { structure: 'global', rank: fullRank, alpha: fullRank, seed };
}

function adaptersOf({ method, rank }: Arm, seed: number): AdapterOptions {
  return {
    structure: method as StructureName,
    rank,
    blocks: BLOCKS,
    structurePattern: ['head=global'],
    seed,
  };
}

type Course = Pick<TrainOptions, 'data' | 'lr' | 'epochs' | 'seed'>;

/** Patches, trains and merges the model at `path` to one of another name. */
async function trained(
  folder: string,
  name: string,
  path: string,
  adapters: AdapterOptions,
  course: Course,
) {
  const output = (name: string) => ({ output: join(folder, name), force: true });
  const patched = await patch(path, { ...adapters, ...output('patched.onnx') });
  const options = { ...course, ...classification, batchSize: 32, ...output('trained.onnx') };
  await runTraining(
    patched.output,
    resolveTrainOptions({ ...options, schedule: 'cosine', warmup: 10 }),
  );
  const { output: merged } = await merge(join(folder, 'trained.onnx'), {
    ...output(name),
    verify: false,
  });
  return { merged, parameters: patched.parameters.trainable };
}
