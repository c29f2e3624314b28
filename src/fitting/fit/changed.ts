import type { Layer } from '../../adapters/model/layers.js';
import type { Tensor } from '../../onnx/model.js';

/** A stored tensor that differs. */
export interface ChangedPair {
  /** Its name in the base model. */
  readonly name: string;
  readonly base: Tensor;
  readonly tuned: Tensor;
}

/** A layer of the base model whose weight differs. */
export interface ChangedLayer extends ChangedPair {
  readonly layer: Layer;
}

/** A constant that differs and that no adapter represents. */
export interface ChangedTensor extends ChangedPair {
  /** The reason why no adapter represents it. */
  readonly reason: string;
  /** Why no adapter file replaces it either; undefined where one can. */
  readonly obstacle: string | undefined;
}
