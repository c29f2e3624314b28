import type { Layer } from '../../adapters/model/layers.js';
import type { Tensor } from '../../onnx/model.js';

/** A stored tensor that differs. */
export interface ChangedPair {
  /** What the base model calls it. */
  readonly name: string;
  readonly base: Tensor;
  readonly tuned: Tensor;
}

/** A layer of the base model whose weight differs. */
export interface ChangedLayer extends ChangedPair {
  readonly layer: Layer;
}

/** A constant that differs and that no adapter stands for. */
export interface ChangedTensor extends ChangedPair {
  /** Why it is no adapter's. */
  readonly reason: string;
  /** Why no adapter file replaces it either; undefined where one can. */
  readonly obstacle: string | undefined;
}
