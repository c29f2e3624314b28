/** The layers that get adapters or slots, and why others do not. */

import type { AdapterOptions } from '../adapters/edit/new-adapters.js';
import { findLayers, type Layer } from '../adapters/model/layers.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { type Selection, select } from '../adapters/targets/select.js';
import { OnnxLoraError } from '../errors.js';
import { type Model, nodeLabel } from '../onnx/model.js';

/** A node that was named and can take no adapter. */
export interface Skipped {
  /** Name of the node. */
  readonly node: string;
  /** Why it takes no adapter. */
  readonly reason: string;
}

/**
 * The layers that the options name and that can take an adapter, beside all that the model has.
 * @param divide what makes several of a layer that computes several modules
 * @throws OnnxLoraError `no-target` where none can, naming the reasons; `no-match`
 */
export function chooseLayers(
  patched: PatchedModel,
  options: Selection & Pick<AdapterOptions, 'perNode'>,
  divide: (layers: Layer[]) => Layer[] = (layers) => layers,
): { layers: Layer[]; all: Layer[]; skipped: Skipped[] } {
  const { model } = patched;
  const all = divide(findLayers(patched, options.perNode));
  const named = select(all, options);
  const layers = named.filter(({ refusal }) => refusal === undefined);
  const skipped = named.flatMap(({ nodes, refusal }) =>
    refusal === undefined ? [] : nodes.map((node) => ({ node: nodeLabel(node), reason: refusal })),
  );
  if (layers.length === 0) throw noTarget(model, skipped);
  return { layers, all, skipped };
}

function noTarget(model: Model, skipped: readonly Skipped[]): OnnxLoraError {
  const reasons = new Map<string, Skipped[]>();
  for (const one of skipped) {
    const alike = reasons.get(one.reason);
    if (alike) alike.push(one);
    else reasons.set(one.reason, [one]);
  }
  const most = [...reasons.values()].sort((a, b) => b.length - a.length)[0] ?? [];
  const [first] = most;
  const more = most.length > 1 ? ` and ${most.length - 1} more` : '';
  const why = first
    ? `${first.node}${more}: ${first.reason}`
    : 'it has no MatMul or Gemm with a constant weight';
  return new OnnxLoraError(
    'no-target',
    `${model.source.label}: no layer can take an adapter (${why})`,
    {
      node: first?.node,
      hint: 'See every layer and its reason with: `(await inspect(model)).targets`',
    },
  );
}
