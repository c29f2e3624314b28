/**
 * Brings tensors from the device to the host. The binding's own `getData` ends the process, so a
 * model that copies its inputs does it: its outputs come to the host.
 */
import type { Tensor } from 'onnxruntime-node';
import { GraphBuilder } from '../graph/builder.js';
import { collect } from '../onnx/edit.js';
import { type NativeModel, openNative, runNative, tensorValue, type ValueMeta } from './native.js';
import type { ProviderName } from './provider-names.js';
import type { TensorValue } from './tensor-value.js';

const OPSET = 17;

export class StateReader {
  private constructor(
    private readonly model: NativeModel,
    private readonly outputs: ReadonlyMap<string, string>,
  ) {}

  /** @throws OnnxLoraError as `openSession` does */
  static async open(values: readonly ValueMeta[], provider: ProviderName): Promise<StateReader> {
    const graph = new GraphBuilder([{ domain: '', version: OPSET }]);
    for (const { name } of values) graph.reserve(name);
    const outputs = new Map<string, string>();
    for (const { name, dtype } of values) {
      graph.inputs.push({ name, dtype, shape: null });
      const output = graph.op('Identity', [name]);
      graph.outputs.push({ name: output, dtype, shape: null });
      outputs.set(name, output);
    }
    const bytes = await collect(graph.modelPieces());
    return new StateReader(await openNative(bytes, { provider }), outputs);
  }

  /** Copies of the tensors; there is one for each value that the reader was opened for. */
  async read(tensors: ReadonlyMap<string, Tensor>): Promise<Map<string, TensorValue>> {
    const { outputNames } = this.model.session;
    const results = await runNative(this.model, Object.fromEntries(tensors), outputNames);
    return new Map(
      [...this.outputs].map(([name, output]) => [name, tensorValue(results[output]!)]),
    );
  }

  release(): Promise<void> {
    return this.model.session.release();
  }
}
