/** Trained numbers into the model file: only the adapters' own bytes change. */

import { replaceTensors } from '../adapters/edit/replaced.js';
import { replaceManifest } from '../adapters/model/manifest.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { NameAuthority } from '../graph/names.js';
import { fromFloat64 } from '../onnx/dtype.js';
import { MessageEdit } from '../onnx/edit.js';
import { initializerRecord, type NewTensor } from '../onnx/encode.js';
import type { Model, Tensor } from '../onnx/model.js';
import { setTensorData } from '../onnx/rewrite.js';
import { floatTypeOf } from '../onnx/tensor.js';
import type { ForwardGraph } from './forward.js';

/**
 * An edit that gives the adapters of a model, and what trained with them, the numbers in `theta`.
 * @param labels the names of the classes, where the data have some
 */
export function trainedModel(
  patched: PatchedModel,
  { set, parameters, biases }: Pick<ForwardGraph, 'set' | 'parameters' | 'biases'>,
  theta: Float32Array,
  labels?: readonly string[],
): MessageEdit {
  const { model } = patched;
  const root = new MessageEdit(model.source, model.range);
  const trained: NewTensor[] = [];
  for (const { name, offset, length } of parameters) {
    const tensor = patched.constant(name);
    const dtype = floatTypeOf(tensor, model);
    const values = Float64Array.from(theta.subarray(offset, offset + length));
    const data = fromFloat64(dtype, values);
    if (biases.includes(name)) trained.push({ name, dtype, dims: tensor.dims, data });
    else setNumbers(root, model, tensor, { name, dtype, dims: tensor.dims, data });
  }
  if (trained.length > 0 || labels) {
    const context = { edit: root, names: new NameAuthority(model), from: 'the trained biases' };
    const named = labels ? { ...set, labels: [...labels] } : set;
    replaceManifest(root, model, replaceTensors(patched, named, trained, context));
  }
  return root;
}

function setNumbers(root: MessageEdit, model: Model, tensor: Tensor, trained: NewTensor): void {
  const { data } = trained;
  if (tensor.data.kind === 'raw' || tensor.data.kind === 'typed') {
    const { length } = data as Uint8Array;
    const chunks = () => [data as Uint8Array];
    setTensorData(root, { tensor, graph: model.graph }, { length, chunks });
  } else {
    // Another program moved it out of the file: it comes back, into the place of its record.
    root.child(model.graph.field).replace(tensor.field, ...initializerRecord(trained));
  }
}
