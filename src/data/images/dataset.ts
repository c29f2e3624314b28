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
}

export class ImageDataset implements Dataset {
  readonly keys: ReadonlyMap<string, SampleSpec>;

  constructor(private readonly samples: ImageSamples) {
    const { input, pixels, targets } = samples;
    const image: SampleSpec = { dtype: 'float32', shape: shapeOf(pixels) };
    this.keys = new Map([[input, image], ...targets.keys]);
  }

  get label(): string {
    return this.samples.label;
  }

  get size(): number {
    return this.samples.paths.length;
  }

  get classes(): readonly string[] | undefined {
    return this.samples.targets.classes;
  }

  get skipped(): number {
    return this.samples.skipped;
  }

  get recipe(): string {
    return JSON.stringify(this.samples.pixels);
  }

  placeOf(sample: number): string {
    return this.samples.paths[sample]!;
  }

  async batch(
    indices: ArrayLike<number>,
    keys: Iterable<string> = this.keys.keys(),
  ): Promise<Map<string, TensorValue>> {
    const { input, targets } = this.samples;
    const wanted = Array.from(indices);
    const batch = new Map<string, TensorValue>();
    for (const key of keys) {
      batch.set(key, key === input ? await this.images(wanted) : targets.batch(wanted, key));
    }
    return batch;
  }

  close(): void {}

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
