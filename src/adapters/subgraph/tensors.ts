import type { FloatName } from '../../onnx/dtype.js';
import type { OwnTensorName } from '../structure/structure.js';

/** The initializers of one adapter. */
export interface AdapterTensors {
  readonly a: string;
  readonly b: string;
  /** The global part of a hybrid. */
  readonly generalA?: string | undefined;
  readonly generalB?: string | undefined;
  /** Left out where B has the scale in it. */
  readonly scale?: string | undefined;
  /** Those that its kind has beside them. */
  readonly own?: Readonly<Partial<Record<OwnTensorName, string>>> | undefined;
  /** Type of all of them. */
  readonly dtype: FloatName;
}
