/** Describes a model, its linear layers, and the adapters in it. */

import { statSync } from 'node:fs';
import { readFactors } from '../adapters/factors/factors.js';
import { blockNorms, totalNorm } from '../adapters/factors/norms.js';
import {
  type AdapterSummary,
  adapterSummary,
  headParameters,
  parameterShare,
  parametersOf,
} from '../adapters/kinds/summary.js';
import { exportedBeside } from '../adapters/model/exported-adapters.js';
import { findLayers, type Layer, multiplying } from '../adapters/model/layers.js';
import type { Head, ModelManifest, PatchedAdapter } from '../adapters/model/manifest.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { AttachedSite, PatchedModel } from '../adapters/model/patched.js';
import type { SlotManifest } from '../adapters/model/slot-manifest.js';
import { slotSummary } from '../adapters/slots/summary.js';
import { structureOf } from '../adapters/structure/structure.js';
import { operator, type Weight } from '../adapters/targets/index.js';
import { OnnxLoraError } from '../errors.js';
import { traceConstant } from '../graph/constants.js';
import type { ValueIndex } from '../graph/uses.js';
import { byteLength, findDataType } from '../onnx/dtype.js';
import { externalLocations, resolveLocation } from '../onnx/external.js';
import { elementCount, type Model, type Node, type ValueInfo } from '../onnx/model.js';
import { fileError } from '../onnx/source.js';
import { checkOutput, writeFiles } from '../onnx/write.js';
import { resolveOptions } from '../options/resolve.js';
import { inspectPage } from '../report/html.js';
import type {
  BlockNorms,
  InspectedHead,
  InspectedSet,
  InspectedSlots,
  InspectedTarget,
  InspectedValue,
  InspectedWeight,
  InspectResult,
  InspectSummary,
  ModelFacts,
} from '../report/inspection.js';
import { inputFiles, inputsOf } from './inputs.js';
import { locateModel } from './model-folder.js';
import { type InspectOptions, inspectOptions } from './options/inspect.js';

export type { InspectOptions };

/**
 * Reads the model at `path`: its structure, and of its numbers those of adapters only.
 * @throws OnnxLoraError `file-not-found`, `invalid-model`, `invalid-manifest`, `external-data` where
 * adapters are in a file that is missing; with `html` those of writing
 * @example
 * ```ts
 * import { inspect } from 'onnx-lora';
 *
 * const { summary, targets } = await inspect('model.lora.onnx');
 * console.log(`${summary.adapted} of ${summary.eligible} layers have an adapter`);
 * for (const { module, eligible, reason } of targets) {
 *   if (!eligible) console.log(module, reason);
 * }
 * ```
 */
export async function inspect(path: string, given: InspectOptions = {}): Promise<InspectResult> {
  const options = resolveOptions(inspectOptions, given, 'inspect');
  const { file } = locateModel(path, options.onNote);
  return await withModel(file, async (opened) => {
    const { html } = options;
    if (html === undefined) return examine(opened).result;
    const inputs = [...inputFiles(opened.model), ...inputsOf(options)];
    checkOutput(html, inputs, options.force ?? false, 'html');
    const { result, blocks } = examine(opened, { blocks: true });
    const page = new TextEncoder().encode(inspectPage(result, blocks));
    await writeFiles([{ path: html, pieces: [page] }], inputs, options);
    return result;
  });
}

/**
 * The findings of inspect, with the block norms that its page draws.
 * @throws OnnxLoraError as {@link inspect}
 */
export function inspectBlocks(path: string): Promise<Examined> {
  return withModel(path, (opened) => examine(opened, { blocks: true }));
}

interface Examined {
  readonly result: InspectResult;
  readonly blocks: BlockNorms;
}

function examine(opened: OpenedModel, wanted: { blocks?: boolean } = {}): Examined {
  const { model, patched } = opened;
  const { summaries, blocks } = measureAdapters(opened, wanted.blocks ?? false);
  const targets = describeTargets(patched, summaries);
  const parameters = parametersOf(model);
  const all = [...summaries.values()];
  const result = {
    model: describeModel(model, parameters),
    inputs: model.graph.inputs
      // Before IR 4 every initializer is an input as well.
      .filter(({ name }) => !model.graph.initializers.has(name))
      .map(describeValue),
    outputs: model.graph.outputs.map(describeValue),
    targets,
    summary: summarize(targets, all, parameters),
    sets: patched.sets.map((set) => describeSet(set, all)),
    slots: patched.slots ? describeSlots(patched.slots) : null,
    ...exportedIn(targets),
  };
  return { result, blocks };
}

function exportedIn(targets: readonly InspectedTarget[]) {
  const modules = new Set(targets.flatMap(({ module }) => exportedBeside(module) ?? []));
  return modules.size === 0 ? {} : { exportedAdapters: [...modules] };
}

function describeModel(model: Model, parameters: number): ModelFacts {
  const { source, irVersion, opsets, producer } = model;
  return {
    path: source.label,
    irVersion,
    opsets: opsets.map(({ domain, version }) => ({ domain: domain || 'ai.onnx', version })),
    producer,
    bytes: source.size,
    externalData: externalLocations(model).map((location) => ({
      location,
      bytes: externalBytes(model, location),
    })),
    parameters,
  };
}

function externalBytes(model: Model, location: string): number | null {
  try {
    return statSync(resolveLocation(model, location)).size;
  } catch (error) {
    if (error instanceof OnnxLoraError) return null;
    throw fileError(location, error);
  }
}

function describeValue({ name, dataType, shape }: ValueInfo): InspectedValue {
  return { name, type: findDataType(dataType) ?? 'unknown', shape };
}

function summarize(
  targets: readonly InspectedTarget[],
  adapters: readonly AdapterSummary[],
  parameters: number,
): InspectSummary {
  const adapterParameters = sumParameters(adapters);
  return {
    targets: targets.length,
    eligible: targets.filter(({ eligible }) => eligible).length,
    adapted: targets.filter(({ adapter }) => adapter !== null).length,
    adapterParameters,
    percent: parameterShare(adapterParameters, parameters).percent,
  };
}

function describeSet(set: ModelManifest, all: readonly AdapterSummary[]): InspectedSet {
  const adapters = all.filter((adapter) => adapter.set === set.set);
  return {
    name: set.set,
    adapters: adapters.length,
    parameters: sumParameters(adapters),
    head: set.head ? describeHead(set.head) : null,
    replaced: [...(set.replaced ?? []), ...(set.biases ?? [])].map(({ tensor }) => tensor),
    createdBy: set.createdBy,
  };
}

function describeSlots({ mode, slots, createdBy }: SlotManifest): InspectedSlots {
  return { mode, slots: slots.map(slotSummary), createdBy };
}

function describeHead(head: Head): InspectedHead {
  const { classes, pooling, input, output } = head;
  return { classes, pooling, input, output, parameters: headParameters(head) };
}

function sumParameters(adapters: readonly AdapterSummary[]): number {
  return adapters.reduce((sum, { parameters }) => sum + parameters, 0);
}

// A finer grid has cells too small to see and to point at.
const MAX_DRAWN_BLOCKS = 1024;

function measureAdapters({ patched, reader }: OpenedModel, wantBlocks: boolean) {
  const summaries = new Map<PatchedAdapter, AdapterSummary>();
  const blocks = new Map<AdapterSummary, Float64Array[]>();
  for (const { set, adapters } of patched.sets) {
    for (const adapter of adapters) {
      const structure = structureOf(adapter);
      const factors = readFactors(patched, reader, adapter);
      const norm = totalNorm(structure, factors, adapter.scale);
      const summary = adapterSummary(set, adapter, norm);
      summaries.set(adapter, summary);
      if (wantBlocks && norm > 0 && structure.grid[0] * structure.grid[1] <= MAX_DRAWN_BLOCKS) {
        blocks.set(summary, blockNorms(structure, factors, adapter.scale));
      }
    }
  }
  return { summaries, blocks };
}

function describeTargets(
  patched: PatchedModel,
  summaries: ReadonlyMap<PatchedAdapter, AdapterSummary>,
): InspectedTarget[] {
  const sites = new Map<Node, AttachedSite[]>();
  for (const site of patched.sites) {
    const known = sites.get(site.target);
    if (known) known.push(site);
    else sites.set(site.target, [site]);
  }
  const slots = patched.slotsByTarget();
  const described = findLayers(patched)
    .flatMap((layer) => layer.nodes.map((node, i) => ({ layer, node, i })))
    // Nodes that share a weight come together: back to the order of the file.
    .sort((x, y) => x.node.field.start - y.node.field.start);
  return described.map(({ layer, node, i }) => {
    const attached = sites.get(node) ?? [];
    const adapters = attached.map(({ adapter }) => summaries.get(adapter)!);
    return {
      node: layer.nodeNames[i]!,
      op: operator(layer.linear[i]?.product?.node ?? node),
      module: layer.modules[i]!,
      ...describeWeight(patched.values, layer, i),
      adapter: adapters[0] ?? null,
      adapters,
      slot: slots.get(node)?.name ?? null,
    };
  });
}

function describeWeight(values: ValueIndex, layer: Layer, i: number) {
  const linear = layer.linear[i];
  if (!linear) return { weight: null, eligible: false, reason: layer.refusal ?? '' };
  const { weight } = linear;
  const node = multiplying(linear);
  const source = sourceOf(node, weight);
  const { constant, storedDtype } = weight;
  const stored = (constant ?? traceConstant(values, node.graph, weight.name))?.tensor;
  const described: InspectedWeight = {
    name: constant?.tensor.name || constant?.node?.outputs[0] || weight.name,
    shape: [weight.in, weight.out],
    dtype: storedDtype,
    bytes:
      stored && storedDtype !== 'string' ? byteLength(storedDtype, elementCount(stored.dims)) : 0,
    source,
  };
  const shared = layer.nodes.length > 1 ? `, shared by ${layer.nodes.length} nodes` : '';
  const isConv = linear.geometry.kind === 'channels';
  const kind = isConv ? `1x1 ${node.opType}` : node.opType;
  return {
    weight: described,
    eligible: true,
    reason: `${kind} with ${phrase(weight, source)}${shared}`,
  };
}

function sourceOf(node: Node, { constant }: Weight): string {
  if (!constant) {
    const bits = node.attributes.get('bits')?.i;
    return `packed (${node.opType}${bits === undefined ? '' : `, ${bits} bit`})`;
  }
  const holder = constant.node ? 'Constant node' : 'initializer';
  const input = constant.overridable ? ' that is an input too' : '';
  const steps = constant.steps.map(({ opType }) => opType);
  return `${holder}${input}${steps.length > 0 ? ` via ${steps.join(', ')}` : ''}`;
}

function phrase({ constant, dtype, storedDtype, ...weight }: Weight, source: string): string {
  const shape = `[${weight.in}, ${weight.out}]`;
  const used = dtype === storedDtype ? '' : `, used as ${dtype}`;
  if (!constant) return `a ${shape} weight, ${source}${used}`;
  const article = constant.node ? 'a' : 'an';
  return `a constant ${shape} ${storedDtype} weight from ${article} ${source}${used}`;
}
