/**
 * Adapters that an exporter has put into a graph as layers of their own: the model builder of onnxruntime-genai
 * from `adapter_path`, and PyTorch's exporters from a model of PEFT that was not merged.
 */

/** A factor's module: `q_proj.lora_A`, of PEFT `q_proj.lora_A.default`. */
const FACTOR = /^(.+)\.lora_[AB](\.[^.]+)?$/;

/** The module that such an adapter is beside; undefined for a module that is not a factor of one. */
export function exportedBeside(module: string): string | undefined {
  return FACTOR.exec(module)?.[1];
}
