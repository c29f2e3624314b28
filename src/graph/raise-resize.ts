/**
 * Resize of opset 10 and Upsample in the form of Resize from opset 11 on, which tells how coordinates
 * are counted and rounded.
 */
import { isConvertible, toFloat64 } from '../onnx/dtype.js';
import type { AttributeValue, NewNode } from '../onnx/encode.js';
import { elementCount } from '../onnx/model.js';
import type { GraphBuilder } from './builder.js';

/**
 * The old operators count coordinates from the edge. To the nearest pixel ONNX Runtime rounds them up
 * where it shrinks an axis, and down elsewhere; the new operator rounds one way, so that what does both
 * becomes two.
 * @param scales one number an axis
 */
export function raiseResize(graph: GraphBuilder, node: NewNode, scales: string): void {
  if (modeOf(node) !== 'nearest') {
    graph.add(resize(node, node.inputs[0]!, scales, node.outputs, 'linear', 'floor'));
    return;
  }
  const known = numbersOf(graph, scales);
  const grows = known?.some((scale) => scale > 1) ?? true;
  const shrinks = known?.some((scale) => scale < 1) ?? true;
  if (!(grows && shrinks)) {
    const round = shrinks ? 'ceil' : 'floor';
    graph.add(resize(node, node.inputs[0]!, scales, node.outputs, 'nearest', round));
    return;
  }
  const one = graph.scalar('float32', 1);
  const [more, less] = ['Max', 'Min'].map((op) => graph.op(op, [scales, one]));
  const middle = graph.fresh(`${node.outputs[0]}/grown`);
  graph.add(
    resize({ ...node, name: middle }, node.inputs[0]!, more!, [middle], 'nearest', 'floor'),
  );
  graph.add(resize(node, middle, less!, node.outputs, 'nearest', 'ceil'));
}

function modeOf({ attributes = {} }: NewNode): string {
  const { mode } = attributes;
  return mode && 'text' in mode ? mode.text : 'nearest';
}

function resize(
  { name }: NewNode,
  input: string,
  scales: string,
  outputs: readonly string[],
  mode: 'nearest' | 'linear',
  round: 'floor' | 'ceil',
): NewNode {
  const attributes: Record<string, AttributeValue> = {
    mode: { text: mode },
    coordinate_transformation_mode: { text: 'asymmetric' },
    nearest_mode: { text: round },
  };
  return { name, opType: 'Resize', inputs: [input, '', scales], outputs, attributes };
}

function numbersOf(graph: GraphBuilder, name: string): Float64Array | undefined {
  const tensor = graph.initializers.get(name);
  if (!tensor || 'chunks' in tensor.data || !isConvertible(tensor.dtype)) return undefined;
  const { dtype, dims, data } = tensor;
  const bytes = data instanceof Uint8Array ? data : data.source.read(data.start, data.end);
  return toFloat64(dtype, bytes, elementCount(dims));
}
