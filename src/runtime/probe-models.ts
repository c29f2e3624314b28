/** Models to try a provider with. */
import { onnx } from '../onnx/proto.js';

const { AttributeType } = onnx.AttributeProto;

const FLOAT32 = 1;
const INT64 = 7;
const IR_VERSION = 8;
const OPSET = 17;

/** y = x + x, shape [2, 2]. */
export function additionModel(): Uint8Array {
  return encode([node('Add', ['x', 'x'], 'y')], [2, 2], [2, 2]);
}

/** Rows and columns of the matrices in `productModel`. */
export const PRODUCT_SIZE = 1024;
const PRODUCTS = 2;

/**
 * x [1, 1024] -> y [1, 1], with two products of 1024 x 1024 matrices between. The matrices are made
 * on the device and stay there, as weights and activations do, so that transfers do not decide.
 */
export function productModel(): Uint8Array {
  const products = Array.from({ length: PRODUCTS }, (_, i) =>
    node('MatMul', [`p${i}`, 'w'], `p${i + 1}`),
  );
  const nodes = [
    // Constant, so it is folded into a weight when the session loads.
    node('ConstantOfShape', ['shape'], 'w'),
    node('Add', ['x', 'w'], 'p0'),
    ...products,
    node('ReduceMax', [`p${PRODUCTS}`], 'y', { keepdims: 1 }),
  ];
  const shape = {
    name: 'shape',
    dataType: INT64,
    dims: [2],
    int64Data: [PRODUCT_SIZE, PRODUCT_SIZE],
  };
  return encode(nodes, [1, PRODUCT_SIZE], [1, 1], [shape]);
}

function node(opType: string, input: string[], output: string, ints: Record<string, number> = {}) {
  const attribute = Object.entries(ints).map(([name, i]) => ({ name, i, type: AttributeType.INT }));
  return { opType, input, output: [output], attribute };
}

function encode(
  nodes: ReturnType<typeof node>[],
  input: number[],
  output: number[],
  initializer: { name: string; dataType: number; dims: number[]; int64Data: number[] }[] = [],
): Uint8Array {
  const graph = {
    name: 'probe',
    node: nodes,
    input: [valueInfo('x', input)],
    output: [valueInfo('y', output)],
    initializer,
  };
  const opsetImport = [{ domain: '', version: OPSET }];
  return onnx.ModelProto.encode({ irVersion: IR_VERSION, opsetImport, graph }).finish();
}

function valueInfo(name: string, dims: number[]) {
  const shape = { dim: dims.map((dimValue) => ({ dimValue })) };
  return { name, type: { tensorType: { elemType: FLOAT32, shape } } };
}
