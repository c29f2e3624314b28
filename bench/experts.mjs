/** Models of many small layers. */
import onnxProto from 'onnx-proto';

const SIZE = 4;
const { ModelProto, TensorProto } = onnxProto.onnx;

/** A mixture of experts as a file: layers in a row; every expert's names are as long as a PyTorch exporter makes them. */
export function expertsModel(layers, isShared = false) {
  const path = (i) =>
    `model.layers.${Math.floor(i / 384)}.mlp.experts.${Math.floor(i / 3) % 128}.${['gate_proj', 'up_proj', 'down_proj'][i % 3]}`;
  const weight = (i) => (isShared ? 'model.embed_tokens.weight' : `${path(i)}.weight`);
  const value = (i) =>
    i === layers ? 'y' : i === 0 ? 'x' : `/${path(i).replaceAll('.', '/')}_output_0`;
  const tensor = (name) => ({
    name,
    dims: [SIZE, SIZE],
    dataType: TensorProto.DataType.FLOAT,
    rawData: new Uint8Array(new Float32Array(SIZE * SIZE).fill(0.01).buffer),
  });
  const node = (i) => ({
    opType: 'MatMul',
    name: isShared ? '' : `/${path(i).replaceAll('.', '/')}/MatMul`,
    input: [value(i), weight(i)],
    output: [value(i + 1)],
  });
  const all = Array.from({ length: layers }, (_, i) => i);
  const io = (name) => ({
    name,
    type: { tensorType: { elemType: 1, shape: { dim: [{ dimParam: 'n' }, { dimValue: SIZE }] } } },
  });
  return ModelProto.encode({
    irVersion: 8,
    opsetImport: [{ domain: '', version: 17 }],
    graph: {
      name: 'graph',
      node: all.map(node),
      initializer: isShared ? [tensor(weight(0))] : all.map((i) => tensor(weight(i))),
      input: [io('x')],
      output: [io('y')],
    },
  }).finish();
}
