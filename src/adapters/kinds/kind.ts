import type { GraphBuilder } from '../../graph/builder.js';
import type { NewNode } from '../../onnx/encode.js';
import type { NewAdapter } from '../factors/factors.js';
import type { WeightContext } from '../fold/dequantize.js';
import type { FoldRule } from '../fold/folded-weight.js';
import type { PatchedAdapter } from '../model/manifest.js';
import type { KindName } from '../structure/choices.js';
import type { OwnTensorName, Scaling, Structure } from '../structure/structure.js';
import type { Change, WeightChange } from '../subgraph/subgraph.js';
import type { Weight } from '../targets/index.js';

/** A kind of adapter: what becomes of a layer's weight W and the ΔW of the factors. */
export interface AdapterKind {
  readonly name: KindName;
  /** As texts call it. */
  readonly label: string;
  /** Tensors beside the factors, with their shapes. */
  readonly tensors: Readonly<Partial<Record<OwnTensorName, (structure: Structure) => number[]>>>;
  /** Such an adapter has more than A and B: it, as refusals call it. */
  readonly beyondFactors?: string;
  /** The nodes read W, and take it alone: why no other adapter can stand beside it, and what it needs of W. */
  readonly readsWeight?: { readonly alone: string; readonly needs: string };
  /** Why the adapter has no multiples, and no sums with others of its kind. */
  readonly notScalable?: string;
  /** Why a fold with a negative scale does not take back one with a positive. */
  readonly notUndoable?: string;
  /** Whether the layer gets `W + s·A·B`: its best A and B can be read off a weight, a gradient, another sum. */
  readonly isSum: boolean;
  /** alpha where nothing is said of it. */
  alpha(size: { rank: number; hybridRank: number; scaling: Scaling }): number;
  /** Whether it changes the layer's own product, and not only adds to it. */
  readonly changesProduct: boolean;
  /** Whether a new adapter beside the weight leaves what the model computes to the last bit. */
  startsExact(weight: Weight): boolean;
  /** The value that an adapter adds to the output of its layer. */
  readonly change: Change;
  /** The value that it adds to the weight of a layer whose output the graph does not show. */
  readonly weightChange: WeightChange;
  readonly fold: FoldRule;
  /** Gives the tensors beside the factors their first numbers. */
  init?(context: WeightContext, adapter: NewAdapter): Promise<NewAdapter>;
  readonly peft: PeftForm;
  readonly train: TrainingRule;
}

/** A kind of adapter as Hugging Face PEFT has it. */
export interface PeftForm {
  /** The `peft_type` in its config. */
  readonly type: 'LORA' | 'HIRA';
  /** Whether its config has a scale; without one it goes into B. */
  readonly hasScale: boolean;
  /** The keys of A and B after the module's path. */
  readonly factors: readonly [a: string, b: string];
  /** The keys of its own tensors after the module's path. */
  readonly keys: Readonly<Partial<Record<OwnTensorName, string>>>;
}

/** An adapted layer in training: `X · V`, V made of W and ΔW. */
export interface TrainingRule {
  /** V of W and ΔW, both laid out as the layer reads them. */
  weight(graph: GraphBuilder, w: string, delta: string): string;
  /**
   * The factors of the product's columns, [out], and the value in it that reverse mode
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
  productReader?(nodes: readonly NewNode[]): NewNode | undefined;
}
