/** Images in files as samples: decoded when their batch is made. */
import type { TensorValue } from '../../runtime/tensor-value.js';
import type { Dataset, SampleSpec } from '../dataset.js';
import { type PixelPlan, readPixels, shapeOf } from './pixels.js';
import type { Targets } from './targets.js';

/** Images that are decoded side by side: each may take a gigabyte, and libvips uses several threads for one. */
const AT_A_TIME = 4;

export interface ImageSamples {
  /** Their name in messages. */
  readonly label: string;
  readonly paths: readonly string[];
  /** The key of the pixels: the model's input. */
  readonly input: string;
  readonly pixels: PixelPlan;
  readonly targets: Targets;
  /** Images that were left out. */
  readonly skipped: number;
  /** Whether further ones may be. */
  readonly mayLeaveOut?: boolean | undefined;
}

export class ImageDataset implements Dataset {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  readonly leaveOut: ((samples: readonly number[]) => void) | undefined;
  /** The images that are samples, by their numbers. */
  private kept: readonly number[];

  constructor(private readonly samples: ImageSamples) {
    const { input, pixels, targets, paths, mayLeaveOut } = samples;
    this.kept = paths.map((_, i) => i);
    if (mayLeaveOut) this.leaveOut = (out) => this.without(new Set(out));
    const image: SampleSpec = { dtype: 'float32', shape: shapeOf(pixels) };
    this.keys = new Map([[input, image], ...targets.keys]);
  }

  get label(): string {
    return this.samples.label;
  }

  get size(): number {
    return this.kept.length;
  }

  get classes(): readonly string[] | undefined {
    return this.samples.targets.classes;
  }

  get skipped(): number {
    const { skipped, paths } = this.samples;
    return skipped + paths.length - this.kept.length;
  }

  get recipe(): string {
    return JSON.stringify(this.samples.pixels);
  }

  placeOf(sample: number): string {
    return this.samples.paths[this.kept[sample]!]!;
  }

  async batch(
    indices: ArrayLike<number>,
    keys: Iterable<string> = this.keys.keys(),
  ): Promise<Map<string, TensorValue>> {
    const { input, targets } = this.samples;
    const wanted = Array.from(indices, (sample) => this.kept[sample]!);
    const batch = new Map<string, TensorValue>();
    for (const key of keys) {
      batch.set(key, key === input ? await this.images(wanted) : targets.batch(wanted, key));
    }
    return batch;
  }

  close(): void {}

  private without(samples: ReadonlySet<number>): void {
    this.kept = this.kept.filter((_, sample) => !samples.has(sample));
  }

  private async images(wanted: readonly number[]): Promise<TensorValue> {
    const { paths, pixels } = this.samples;
    const shape = shapeOf(pixels);
    const size = shape.reduce((product, length) => product * length, 1);
    const data = new Float32Array(wanted.length * size);
    let next = 0;
    const decode = async () => {
      for (let i = next++; i < wanted.length; i = next++) {
        data.set(await readPixels(paths[wanted[i]!]!, pixels), i * size);
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, decode));
    return { dtype: 'float32', dims: [wanted.length, ...shape], data };
  }
}
