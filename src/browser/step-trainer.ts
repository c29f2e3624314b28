/** Trains with an emitted step graph, in any build of ONNX Runtime. */
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { OnnxLoraError } from '../errors.js';
import { scalarsAt, stepNumbers } from '../training/optimizers/scalars.js';
import type { StepManifest } from '../training/step-format.js';
import { adapterBytes } from './adapter-bytes.js';
import { float32Of } from './onnx-file.js';
import { roleOf, stepManifestOf, thetaOf } from './step-manifest.js';

/** ONNX Runtime: the module onnxruntime-web, onnxruntime-node or onnxruntime-react-native. */
export type Ort = Pick<typeof import('onnxruntime-node'), 'InferenceSession' | 'Tensor'>;

export interface StepResult {
  readonly loss: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  /**
   * Number of elements that the loss is the mean of, e.g. labels: the mean over batches is Σ loss·weight / Σ
   * weight. 1 for each batch of a graph without it.
   */
  readonly weight: number;
}

/** A run of training: one session, and the state that it carries from step to step. */
export class StepTrainer {
  /** Batches done. */
  batches = 0;
  /** Updates done; a step in whose batches nothing counts is not one. */
  private updates = 0;
  /** Of the batches that the next update has so far. */
  private weight = 0;

  private constructor(
    private readonly ort: Ort,
    private readonly session: InferenceSession,
    readonly manifest: StepManifest,
    private state: Readonly<Record<string, Tensor>>,
  ) {}

  /**
   * Opens a step graph, with the adapters as they were when it was written.
   * @param model the bytes of the file that `train` wrote for `emitStepGraph`
   * @param options of the session, such as `executionProviders`
   * @throws OnnxLoraError `invalid-model` for a model that is not a step graph
   */
  static async open(
    ort: Ort,
    model: Uint8Array,
    options: InferenceSession.SessionOptions = {},
  ): Promise<StepTrainer> {
    const manifest = stepManifestOf(model);
    const { size, vectors } = manifest.state;
    const vector = (data: Float32Array) => new ort.Tensor('float32', data, [size]);
    const stored = vectors.map(({ initial }) =>
      initial === 0 ? undefined : stateOf(model, initial.initializer, size),
    );
    // Zeros only after the stored ones: those are as large as the file claims.
    const state = vectors.map(({ input }, i) => [
      input,
      vector(stored[i] ?? new Float32Array(size)),
    ]);
    const session = await ort.InferenceSession.create(model, options);
    return new StepTrainer(ort, session, manifest, Object.fromEntries(state));
  }

  /**
   * One batch: an update of the adapters, or a part of one where batches are accumulated. Where no
   * element of it counts, nothing moves.
   * @param batch what `manifest.data` names
   * @throws OnnxLoraError `invalid-data` where the batch lacks an input, `diverged` where the loss or
   * the gradient is not finite; the adapters are then those of the step before
   */
  async step(batch: Readonly<Record<string, Tensor>>, lr: number): Promise<StepResult> {
    const { data, state, outputs } = this.manifest;
    const missing = data.filter(({ name }) => !(name in batch)).map(({ name }) => name);
    if (missing.length > 0) {
      const found = Object.keys(batch).join(', ') || 'nothing';
      throw new OnnxLoraError(
        'invalid-data',
        `the batch has ${found}, and no ${missing.join(', ')}`,
      );
    }
    const feeds = { ...batch, ...this.state, ...this.scalars(lr), ...this.noise() };
    const results = await this.session.run(feeds);
    const number = (name: string) => Number(results[name]!.data[0]);
    const result = {
      loss: number(outputs.loss),
      gradientNorm: number(outputs.gradientNorm),
      weight: outputs.weight === undefined ? 1 : number(outputs.weight),
    };
    if (!Number.isFinite(result.loss) || !Number.isFinite(result.gradientNorm)) {
      throw new OnnxLoraError(
        'diverged',
        `batch ${this.batches + 1}: the loss is ${result.loss}, its gradient's norm ${result.gradientNorm}, expected finite numbers`,
        { hint: 'The likely cause is the learning rate: try a lower one.' },
      );
    }
    const next = state.vectors.map(({ input, output }) => [input, results[output]!] as const);
    this.moveOn(result.weight, Object.fromEntries(next));
    return result;
  }

  private moveOn(weight: number, next: Readonly<Record<string, Tensor>>): void {
    const { isLast } = this;
    this.weight += weight;
    if (this.weight > 0) this.state = next;
    if (isLast && this.weight > 0) this.updates++;
    if (isLast) this.weight = 0;
    this.batches++;
  }

  /** Whether the batch ends an update. */
  private get isLast(): boolean {
    return (this.batches + 1) % this.manifest.optimizer.accumulate === 0;
  }

  /** The trainable tensors by the names that they have in the patched model. */
  tensors(): Map<string, Float32Array> {
    const theta = this.theta();
    return new Map(
      this.manifest.parameters.map(({ name, offset, length }) => [
        name,
        theta.subarray(offset, offset + length),
      ]),
    );
  }

  /** The adapters as a file, for `apply`, and for `merge` as its `adapter`. */
  adapterFile(): Uint8Array<ArrayBuffer> {
    return adapterBytes(this.manifest, this.theta());
  }

  /** Frees the session; what was trained stays readable. */
  release(): Promise<void> {
    return this.session.release();
  }

  private theta(): Float32Array {
    return this.state[thetaOf(this.manifest)!]!.data as Float32Array;
  }

  private scalars(lr: number): Record<string, Tensor> {
    const { scalars } = this.manifest;
    const { betas } = this.manifest.optimizer;
    const values = Object.entries({
      ...scalarsAt(stepNumbers({ betas }), lr, this.updates + 1),
      accumulated_weight: this.weight,
    });
    const tensors: Record<string, Tensor> = {
      ...Object.fromEntries(values.map(([name, value]) => [name, this.float32([value], [])])),
      apply: new this.ort.Tensor('bool', [this.isLast], []),
    };
    const named = Object.keys(scalars).map((name) => [name, tensors[roleOf(this.manifest, name)]!]);
    return Object.fromEntries(named);
  }

  private noise(): Record<string, Tensor> {
    const { noise } = this.manifest;
    if (!noise) return {};
    const values = Float32Array.from({ length: noise.size }, Math.random);
    return { [noise.input]: this.float32(values, [noise.size]) };
  }

  private float32(values: ArrayLike<number>, dims: readonly number[]): Tensor {
    return new this.ort.Tensor('float32', Float32Array.from(values), dims);
  }
}

function stateOf(model: Uint8Array, name: string, size: number): Float32Array {
  const values = float32Of(model, name);
  if (values.length === size) return values;
  throw new OnnxLoraError(
    'invalid-model',
    `initializer ${name} has ${values.length} numbers, expected the ${size} of the state`,
  );
}
