import type { Constant } from '../../graph/constants.js';
import type { DataTypeName, FloatName } from '../../onnx/dtype.js';
import type { Node } from '../../onnx/model.js';

/** The axes of features in a linear layer's input and output. */
export type Geometry =
  /**
   * `Y = X · W` with the features on the last axis. With `inputColumns` they are on the last but
   * one axis of X (`Xᵀ · W`), with `outputColumns` on that of Y (a weight on the left). `flat` says
   * that X and Y have two axes and no more.
   */
  | {
      /** A product of matrices. */
      readonly kind: 'matrix';
      /** Whether the features of X are on its last but one axis. */
      readonly inputColumns: boolean;
      /** Whether the features of Y are on its last but one axis. */
      readonly outputColumns: boolean;
      /** Whether X and Y have two axes. */
      readonly flat: boolean;
    }
  /** Features on axis 1 with any number of axes after it: a 1x1 convolution. */
  | {
      /** Features on axis 1. */
      readonly kind: 'channels';
      /** Number of axes after the features. */
      readonly spatial: number;
      /** Of the convolution, one for each of those axes. */
      readonly strides: readonly number[];
    }
  /**
   * `Y = X · W` inside an operator that takes Y apart: no value of the graph is Y, and an adapter joins W.
   */
  | {
      /** A product that the graph does not show. */
      readonly kind: 'inside';
      /** Columns of the parts that the operator takes, from the first one on. */
      readonly widths: readonly number[];
    };

/** The axes of a layer whose output the graph shows. */
export type OpenGeometry = Exclude<Geometry, { readonly kind: 'inside' }>;

/** The weight of a linear layer, seen as `W [in, out]` whatever its layout in the file. */
export interface Weight {
  /** The value that the node reads. */
  readonly name: string;
  /** Which input of the node it is. */
  readonly input: number;
  /** The constant that the value is made from; undefined where it is quantized inside the operator. */
  readonly constant: Constant | undefined;
  /** Input features. */
  readonly in: number;
  /** Output features. */
  readonly out: number;
  /** The stored tensor is `[out, in]`. */
  readonly transposed: boolean;
  /** Type of the stored numbers. */
  readonly storedDtype: DataTypeName;
  /** Type that the layer computes in: adapters join its output in this type. */
  readonly dtype: FloatName;
  /** The layer computes `factor · X · W` (Gemm's and FusedMatMul's alpha). */
  readonly factor: number;
}

/** A product of integers that stand for floats: `(A - zeroA) · (integers - zeroPoint)`. */
export interface IntegerProduct {
  /** The node that multiplies. */
  readonly node: Node;
  /** Name of the weight's integers; the weight is `(integers - zeroPoint) · scale`. */
  readonly integers: string;
  /** Name of their scale. */
  readonly scale: string;
  /** Name of their zero point, `''` where there is none. */
  readonly zeroPoint: string;
  /** The bias that is added to the product before it is the layer's output. */
  readonly addends: readonly Addend[];
}

/** A bias: floats as they are, or integers with the scales that they are multiplied with. */
export interface Addend {
  /** Name of the numbers. */
  readonly value: string;
  /** Names of the scales; none where the numbers are floats. */
  readonly scales: readonly string[];
  /** Name of the zero point, `''` where there is none. */
  readonly zeroPoint: string;
  /** Another factor of it; default 1. */
  readonly factor?: number;
}

/** A layer that can take an adapter. */
export interface LinearLayer {
  /** The node that gives the layer's output; of an integer product the last one of the dequantization. */
  readonly node: Node;
  /** Present where the layer multiplies integers. */
  readonly product?: IntegerProduct | undefined;
  /** Name of X, in floating point. */
  readonly input: string;
  /** Name of Y; of a product inside an operator, of what the operator gives. */
  readonly output: string;
  /** W, as the file has it. */
  readonly weight: Weight;
  /** The axes of X and Y that the features lie on. */
  readonly geometry: Geometry;
}

/** A layer whose output is a value of the graph: adapters join that, and others the weight. */
export interface OpenLayer extends LinearLayer {
  /** The axes of X and Y that the features lie on. */
  readonly geometry: OpenGeometry;
}

/** Whether the graph shows the output of a layer. */
export function isOpen(layer: LinearLayer): layer is OpenLayer {
  return layer.geometry.kind !== 'inside';
}

/** An analyzer's result: a layer, or the reason why the node is not one. */
/** The node that computes the layer. */
export type Finding = LinearLayer | RefusedNode;

/** A node that cannot take an adapter. */
export interface RefusedNode {
  /** The node. */
  readonly node: Node;
  /** The reason. */
  readonly refusal: string;
}
