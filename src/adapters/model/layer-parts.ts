/** Layers that compute several modules side by side, as one for each of the modules. */
import type { TensorReader } from '../../onnx/tensor.js';
import type { PartChoice } from '../structure/choices.js';
import { type FusedOutput, fusedOutput } from '../targets/fused-layout.js';
import { isBuiltName, partPaths } from '../targets/fusions.js';
import type { Layer } from './layers.js';
import type { PatchedModel } from './patched.js';

/** The grounds on which layers are divided. */
export interface Division {
  readonly parts: PartChoice;
  /** The original model has these layers packed itself: its configuration says so. */
  readonly isPackedModel?: boolean | undefined;
}

/**
 * The layers, those that compute several modules divided. With `auto` that is where a builder or an
 * optimizer has put modules together that the original model has apart: PEFT trains an adapter for each.
 */
export function divideLayers(
  patched: PatchedModel,
  reader: TensorReader,
  layers: readonly Layer[],
  { parts, isPackedModel = false }: Division,
): Layer[] {
  if (parts === 'whole') return [...layers];
  const isOriginal = isPackedModel || keepsModules(patched, layers);
  // No exporter writes this operator: an optimizer has made it of layers that were apart.
  const mayBeBuilt = ({ linear }: Layer) => !isOriginal || linear[0]?.geometry.kind === 'inside';
  return layers.flatMap((layer) => {
    const output = outputOf(patched, reader, layer);
    if (!output?.widths || output.layout === 'by head') return [layer];
    const isDivided = parts === 'split' || (mayBeBuilt(layer) && isBuilt(layer, output));
    return isDivided ? partsOf(layer, output.widths) : [layer];
  });
}

/** Whether a graph has the modules of PyTorch: its exporters write them, and builders use other paths. */
function keepsModules({ model }: PatchedModel, layers: readonly Layer[]): boolean {
  return (
    model.producer.startsWith('pytorch') ||
    layers.some(({ module }) => /(^|\.)self_attn\./.test(module))
  );
}

function isBuilt({ module }: Layer, { isAttention }: FusedOutput): boolean {
  return isBuiltName(module) ?? isAttention;
}

function outputOf(
  { values }: PatchedModel,
  reader: TensorReader,
  { linear }: Layer,
): FusedOutput | undefined {
  const [first] = linear;
  if (!first || first.geometry.kind === 'channels') return undefined;
  if (first.geometry.kind === 'matrix' && first.geometry.outputColumns) return undefined;
  return fusedOutput(values, reader, first);
}

function partsOf(layer: Layer, widths: readonly number[]): Layer[] {
  const of = layer.linear[0]!.weight.out;
  const paths = layer.modules.map((module) => partPaths(module, widths.length));
  return widths.map((width, i) => ({
    ...layer,
    module: paths[0]![i]!,
    modules: paths.map((parts) => parts[i]!),
    whole: layer.modules,
    part: { first: widths.slice(0, i).reduce((sum, one) => sum + one, 0), of, width },
  }));
}
