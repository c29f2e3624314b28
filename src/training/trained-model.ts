/** Trained numbers into the model file: only the adapters' own bytes change. */
import { fromFloat64 } from '../onnx/dtype.js';
import { MessageEdit } from '../onnx/edit.js';
import { initializerRecord } from '../onnx/encode.js';
import type { Model } from '../onnx/model.js';
import { setTensorData } from '../onnx/rewrite.js';
import { floatTypeOf } from '../onnx/tensor.js';
import type { Parameter } from './parameters.js';

/** An edit that gives the adapters of a model the numbers in `theta`. */
export function trainedModel(
  model: Model,
  parameters: readonly Parameter[],
  theta: Float32Array,
): MessageEdit {
  const root = new MessageEdit(model.source, model.range);
  for (const { name, offset, length } of parameters) {
    const tensor = model.graph.initializers.get(name)!;
    const dtype = floatTypeOf(tensor, model);
    const values = Float64Array.from(theta.subarray(offset, offset + length));
    const data = fromFloat64(dtype, values);
    if (tensor.data.kind === 'raw' || tensor.data.kind === 'typed') {
      const chunks = () => [data];
      setTensorData(root, { tensor, graph: model.graph }, { length: data.length, chunks });
    } else {
      // Another program moved it out of the file: it comes back, into the place of its record.
      const record = initializerRecord({ name, dtype, dims: tensor.dims, data });
      root.child(model.graph.field).replace(tensor.field, ...record);
    }
  }
  return root;
}
