/** Names of modules that the model builder of onnxruntime-genai writes in its own way. */

/** A path that only such a graph has. */
export const BUILT_DECODER = /(^|\.)layers\.\d+\.attn\.o_proj$/;

/** Whisper's, whose layers may be those of its encoder or its decoder. */
const WITH_CROSS_ATTENTION = /(^|\.)layers\.\d+\.(cross_attn|attn\.cross)\./;

/** Whether a graph has the builder's names for the modules of a decoder alone. */
export function isBuiltDecoder(paths: readonly string[]): boolean {
  return (
    paths.some((path) => BUILT_DECODER.test(path)) &&
    !paths.some((path) => WITH_CROSS_ATTENTION.test(path))
  );
}

/** The path that a module of such a graph has in PyTorch. */
export function pathInPyTorch(path: string): string {
  return path.replace(/(^|\.)layers\.(\d+)\.attn\.(?=[^.]+$)/, '$1layers.$2.self_attn.');
}
