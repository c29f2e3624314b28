/** A layer of quantized operators as a product of floats: its last node becomes that product. */
import type { NameAuthority } from '../../graph/names.js';
import { dataTypeNumber, fromFloat64 } from '../../onnx/dtype.js';
import type { MessageEdit } from '../../onnx/edit.js';
import { attributeRecord, type NewNode, nodeRecord, record } from '../../onnx/encode.js';
import { NodeField } from '../../onnx/fields.js';
import { type Model, type Node, nodeLabel } from '../../onnx/model.js';
import { addInitializer, graphEdit } from '../../onnx/rewrite.js';
import { encodeString, fieldsOf } from '../../onnx/wire.js';
import type { Addend, LinearLayer } from '../targets/index.js';

/** A model that is being edited. */
export interface Edited {
  readonly root: MessageEdit;
  readonly model: Model;
  readonly names: NameAuthority;
}

/**
 * Lets the layer's last node give `X · W` and what the layer adds to it, under the name that it has. What
 * it read before may stay behind unread.
 * @param weight a value [in, out]
 */
export function becomeProduct(edited: Edited, layer: LinearLayer, weight: string): void {
  const product = productOf(layer, weight);
  const addends = addendsOf(layer);
  const before = new Before(edited, layer);
  let last: Operation = product;
  for (const addend of addends) {
    const sum = before.add(last);
    last = { opType: 'Add', inputs: [sum, before.addend(addend)] };
  }
  change(edited, layer, last);
}

/** The addends of the layer: the bias inside a MatMulNBits is one too. */
export function addendsOf({ node, product }: LinearLayer): readonly Addend[] {
  if (product) return product.addends;
  const bias = node.inputs[BIAS];
  return bias ? [{ value: bias, scales: [], zeroPoint: '' }] : [];
}

const BIAS = 5;

/** An operator and its operands. */
export type Operation = Pick<NewNode, 'opType' | 'domain' | 'inputs' | 'attributes'>;

function productOf(
  { input, geometry, weight: { factor } }: LinearLayer,
  weight: string,
): Operation {
  const isTurned = geometry.kind === 'matrix' && geometry.inputColumns;
  if (factor === 1 && !isTurned) return { opType: 'MatMul', inputs: [input, weight] };
  const attributes = { alpha: { float: factor }, ...(isTurned ? { transA: { int: 1 } } : {}) };
  return { opType: 'Gemm', inputs: [input, weight], attributes };
}

/** Nodes in front of the layer's last one. */
class Before {
  private readonly prefix: string;

  constructor(
    private readonly edited: Edited,
    private readonly layer: LinearLayer,
  ) {
    this.prefix = nodeLabel(layer.product?.node ?? layer.node);
  }

  add({ opType, inputs, attributes = {} }: Operation): string {
    const { root, names } = this.edited;
    const { node } = this.layer;
    const name = names.fresh(`${this.prefix}/merged_${opType.toLowerCase()}`);
    const record = nodeRecord({ name, opType, inputs, outputs: [name], attributes });
    graphEdit(root, node.graph).insertBefore(node.field, ...record);
    return name;
  }

  /** A bias in floats. Of constants: a runtime computes it once, when it loads the model. */
  addend({ value, scales, zeroPoint, factor = 1 }: Addend): string {
    if (scales.length === 0) return value;
    const to = { to: { int: dataTypeNumber(this.layer.weight.dtype) } };
    const floats = (name: string) => this.add({ opType: 'Cast', inputs: [name], attributes: to });
    const numbers = zeroPoint
      ? this.add({ opType: 'Sub', inputs: [floats(value), floats(zeroPoint)] })
      : floats(value);
    const factors = [...scales, ...(factor === 1 ? [] : [this.number(factor)])];
    return factors.reduce((x, by) => this.add({ opType: 'Mul', inputs: [x, by] }), numbers);
  }

  private number(value: number): string {
    const { root, model, names } = this.edited;
    const { dtype } = this.layer.weight;
    const name = names.fresh(`${this.prefix}/merged_factor`);
    addInitializer(root, model, {
      name,
      dtype,
      dims: [],
      data: fromFloat64(dtype, Float64Array.of(value)),
    });
    return name;
  }
}

/** Makes another operation of a node, whose name becomes that of the node that multiplied. */
export function change(
  { root, model }: Pick<Edited, 'root' | 'model'>,
  { node, product }: Pick<LinearLayer, 'node' | 'product'>,
  to: Operation,
): void {
  const edit = graphEdit(root, node.graph).child(node.field);
  const name = product?.node.name;
  for (const field of fieldsOf(model.source, { start: node.field.value, end: node.field.end })) {
    const { number } = field;
    if (number === NodeField.opType) edit.setPayload(field, encodeString(to.opType));
    if (number === NodeField.name && name) edit.setPayload(field, encodeString(name));
    if (number === NodeField.domain || number === NodeField.attribute) edit.remove(field);
  }
  setInputs(edit, node, to.inputs);
  if (to.domain) edit.append(...record(NodeField.domain, encodeString(to.domain)));
  for (const [key, value] of Object.entries(to.attributes ?? {})) {
    edit.append(...attributeRecord(key, value));
  }
}

function setInputs(edit: MessageEdit, { inputFields }: Node, inputs: readonly string[]): void {
  for (const [i, field] of inputFields.entries()) {
    const input = inputs[i];
    if (input === undefined) edit.remove(field);
    else edit.setPayload(field, encodeString(input));
  }
  for (const input of inputs.slice(inputFields.length)) {
    edit.append(...record(NodeField.input, encodeString(input)));
  }
}
