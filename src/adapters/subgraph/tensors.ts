import type { FloatName } from '../../onnx/dtype.js';

/** The initializers of one adapter. */
export interface AdapterTensors {
  readonly a: string;
  readonly b: string;
  /** The global part of a hybrid. */
  readonly generalA?: string | undefined;
  readonly generalB?: string | undefined;
  /** Left out where B has the scale in it. */
  readonly scale?: string | undefined;
  /** DoRA: the norms that the columns of W + ΔW are brought to. */
  readonly magnitude?: string | undefined;
  /** Type of all of them. */
  readonly dtype: FloatName;
}
