/** Images in files as samples: decoded when their batch is made. */
import type { TensorValue } from '../../../runtime/tensor-value.js';
import type { Dataset, SampleSpec } from '../dataset.js';
import { type PixelPlan, readPixels, shapeOf } from './pixels.js';

/** What samples are compared with, as arrays by key. */
export interface Targets {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  batch(indices: readonly number[], key: string): TensorValue;
}

export class ImageDataset implements Dataset {
  readonly keys: ReadonlyMap<string, SampleSpec>;

  /**
   * @param paths of the images
   * @param input the key of the pixels: the model's input
   */
  constructor(
    readonly label: string,
    private readonly paths: readonly string[],
    private readonly input: string,
    private readonly pixels: PixelPlan,
    private readonly targets: Targets,
  ) {
    const image: SampleSpec = { dtype: 'float32', shape: shapeOf(pixels) };
    this.keys = new Map([[input, image], ...targets.keys]);
  }

  get size(): number {
    return this.paths.length;
  }

  async batch(
    indices: ArrayLike<number>,
    keys: Iterable<string> = this.keys.keys(),
  ): Promise<Map<string, TensorValue>> {
    const samples = Array.from(indices);
    const batch = new Map<string, TensorValue>();
    for (const key of keys) {
      const value =
        key === this.input ? await this.images(samples) : this.targets.batch(samples, key);
      batch.set(key, value);
    }
    return batch;
  }

  close(): void {}

  private async images(samples: readonly number[]): Promise<TensorValue> {
    const decoded = await Promise.all(
      samples.map((sample) => readPixels(this.paths[sample]!, this.pixels)),
    );
    const shape = shapeOf(this.pixels);
    const size = shape.reduce((product, length) => product * length, 1);
    const data = new Float32Array(samples.length * size);
    decoded.forEach((pixels, i) => {
      data.set(pixels, i * size);
    });
    return { dtype: 'float32', dims: [samples.length, ...shape], data };
  }
}
