import type { GraphBuilder } from '../../graph/builder.js';
import type { NewNode } from '../../onnx/encode.js';
import type { PatchedAdapter } from '../model/manifest.js';
import type { KindName } from '../structure/choices.js';

/** A kind of adapter: what becomes of a layer's weight W and the ΔW of the factors. */
export interface AdapterKind {
  readonly name: KindName;
  /** Its nodes and its fold read W: no other adapter can change what they read. */
  readonly readsWeight: boolean;
  readonly train: TrainingRule;
}

/** An adapted layer in training: `X · V`, V made of W and ΔW. */
export interface TrainingRule {
  /** V is W + ΔW, so that the gradients of the factors are thin products. */
  readonly isSum: boolean;
  /** V of W and ΔW, both laid out as the layer reads them. */
  weight(graph: GraphBuilder, w: string, delta: string): string;
  /**
   * What the columns of the product are multiplied with, [out], and the value in it that reverse mode
   * takes for a constant.
   * @param axis of V that a column runs along
   */
  gain?(
    graph: GraphBuilder,
    adapter: PatchedAdapter,
    { weight, axis }: { weight: string; axis: number },
  ): { gain: string; constant: string };
  /** The values that reverse mode takes for constants where the adapter's nodes stay as they are. */
  constants?(nodes: readonly NewNode[]): string[];
  /**
   * The node of an adapter whose first input is `X · W`: with dropout it reads the product of what
   * dropout left of X.
   */
  productReader?(nodes: readonly NewNode[]): NewNode;
}
