/** The distance of a graph from its file that rounding alone explains. */
import { type DataTypeName, findDataType, isFloating } from '../../onnx/dtype.js';
import { allTensors } from '../../onnx/external.js';
import { allGraphs, type Model, type Node } from '../../onnx/model.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import { defaultTolerance } from '../../runtime/tolerance.js';

// CUDA multiplies float32 with the 11 bits of TF32.
const ON_OTHER_PROVIDERS = 8e-3;

/**
 * Both compute the same operators on the same numbers, so that a number that is rounded to 8 bits on the
 * way is the same one, but where float32's rounding puts it on the other side of a step.
 */
const QUANTIZED_ACTIVATIONS = 2e-2;

/**
 * As a share of the greatest number of the output.
 * @param computed types of the output and of numbers that are fed in the place of the file's
 */
export function guardTolerance(
  model: Model,
  computed: readonly DataTypeName[],
  provider: ProviderName,
): number {
  const nodes = nodesOf(model);
  const types = [
    ...computed,
    ...inputTypes(model),
    ...nodes.flatMap(castTypes),
    ...weightTypes(model),
  ];
  const floats = types.filter((dtype) => dtype !== undefined && isFloating(dtype));
  const least = [
    defaultTolerance([], floats as DataTypeName[]),
    ...(nodes.some(({ opType }) => QUANTIZING.has(opType)) ? [QUANTIZED_ACTIVATIONS] : []),
    ...(provider === 'cpu' || provider === 'webgpu' ? [] : [ON_OTHER_PROVIDERS]),
  ];
  return Math.max(...least);
}

function nodesOf(model: Model): Node[] {
  const roots = [model.graph, ...model.functions.map(({ body }) => body)];
  return roots.flatMap((root) => [...allGraphs(root)].flatMap(({ nodes }) => nodes));
}

function inputTypes({ graph }: Model): (DataTypeName | undefined)[] {
  return graph.inputs.map(({ dataType }) => findDataType(dataType));
}

function castTypes({ opType, attributes }: Node): (DataTypeName | undefined)[] {
  const to = opType === 'Cast' ? attributes.get('to')?.i : undefined;
  return to === undefined ? [] : [findDataType(to)];
}

/** Of matrices: scalars and biases are often kept in another precision. */
function weightTypes(model: Model): (DataTypeName | undefined)[] {
  const matrices = [...allTensors(model)].filter(({ tensor }) => tensor.dims.length >= 2);
  return matrices.map(({ tensor }) => findDataType(tensor.dataType));
}

const QUANTIZING = new Set([
  'DynamicQuantizeLinear',
  'DynamicQuantizeLSTM',
  'DynamicQuantizeMatMul',
  'QuantizeLinear',
]);
