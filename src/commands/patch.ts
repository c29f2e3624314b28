import { basename } from 'node:path';
import { checkNoBindOptions } from '../adapters/binding/bind-options.js';
import { type NewHead, parseHead } from '../adapters/edit/head.js';
import { adapterNorm, insertAdapters } from '../adapters/edit/insert.js';
import { type AdapterOptions, planAdapters } from '../adapters/edit/new-adapters.js';
import type { NewAdapter } from '../adapters/factors/factors.js';
import type { WeightContext } from '../adapters/fold/dequantize.js';
import { checkPlace } from '../adapters/kinds/check.js';
import { kindOf, kinds } from '../adapters/kinds/index.js';
import { describeAdapters, parameterShare, parametersOf } from '../adapters/kinds/summary.js';
import { findLayers, type Layer } from '../adapters/model/layers.js';
import { PatchedModel } from '../adapters/model/patched.js';
import { slotNames } from '../adapters/model/slot-names.js';
import { emptyFeeds } from '../adapters/slots/feeds.js';
import { insertSlots } from '../adapters/slots/insert.js';
import { slotSummary } from '../adapters/slots/summary.js';
import type { SlotMode } from '../adapters/structure/choices.js';
import { type Selection, select } from '../adapters/targets/select.js';
import { OnnxLoraError } from '../errors.js';
import { startAdapters, startDataOptions } from '../fitting/init/start.js';
import { NewDataFile } from '../onnx/data-file.js';
import { ExternalFiles } from '../onnx/external.js';
import { type Model, nodeLabel } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import { TensorReader } from '../onnx/tensor.js';
import { checkOutput } from '../onnx/write.js';
import { apart, runsApart } from './apart.js';
import { inputFiles, inputsOf } from './inputs.js';
import { defaultOutput, writeModel, writeWithData } from './output.js';
import type { PatchOptions, PatchResult, Skipped } from './patch-options.js';

/**
 * Inserts adapters into the model at `path`, or slots for them, and writes the patched model. New
 * adapters start at zero, and slots are empty: the patched model computes what the base model does. With
 * `init: 'pissa'` it does so up to the rounding of its weights.
 * @throws OnnxLoraError `no-target`, `no-match`, `invalid-argument`, and those of reading and writing
 */
export async function patch(path: string, options: PatchOptions = {}): Promise<PatchResult> {
  if (!runsModel(options) || !runsApart(path)) return await patchHere(path, options);
  return await apart({
    work: 'patch',
    paths: [path],
    options,
    label: `the run of ${path}`,
    advice: () => 'Then patch again.',
    stop: 'ask',
  });
}

/** Whether the model is run, and not only edited. */
function runsModel({ verify, init, structure, data }: PatchOptions): boolean {
  return verify === true || init === 'gradient' || (structure === 'auto' && data !== undefined);
}

/** As `patch`, in this process. */
export async function patchHere(path: string, options: PatchOptions): Promise<PatchResult> {
  const { adapter, slots, verify, ...rest } = options;
  if (adapter === undefined) checkNoBindOptions(options);
  const mode = slots === true ? 'required' : slots;
  if (mode) return await patchSlots(path, mode, options);
  if (adapter !== undefined) {
    const { apply } = await import('./apply.js');
    return { ...(await apply(path, adapter, options)), skipped: [] };
  }
  const result = await insertNew(path, rest);
  if (!verify) return result;
  // Weights that were split are rounded, and so are norms.
  const isExact = result.deviation === undefined && kinds[options.kind ?? 'lora'].startsExact;
  const how = isExact ? { ...options, tolerance: 0 } : options;
  const { verifyModels } = await import('./verify.js');
  const verification = await verifyModels(path, { path }, { path: result.output }, how);
  return { ...result, verification };
}

async function patchSlots(
  path: string,
  mode: SlotMode,
  options: PatchOptions,
): Promise<PatchResult> {
  const idle = (['adapter', 'head'] as const).find((key) => options[key] !== undefined);
  if (idle) throw new OnnxLoraError('invalid-argument', `${idle} has no effect on slots`);
  const { result, slots } = await insertNewSlots(path, mode, options);
  if (!options.verify) return result;
  const ownFeeds = mode === 'required' ? emptyFeeds(slots, options.provider) : undefined;
  const candidate = { path: result.output, ownFeeds };
  const { verifyModels } = await import('./verify.js');
  const verification = await verifyModels(path, { path }, candidate, { ...options, tolerance: 0 });
  return { ...result, verification };
}

async function insertNewSlots(path: string, mode: SlotMode, options: PatchOptions) {
  const model = openModel(path);
  try {
    const patched = new PatchedModel(model);
    const { layers, all, skipped } = chooseLayers(patched, options);
    const names = slotNames(all);
    const chosen = new Map(layers.map((layer) => [layer, names.get(layer)!]));
    const { edit, manifest } = insertSlots(patched, chosen, mode);
    const output = options.output ?? defaultOutput(path, 'slots');
    await writeModel(model, edit, output, options);
    const { slots } = manifest;
    const parameters = parameterShare(0, parametersOf(model));
    const result = { output, adapters: [], slots: slots.map(slotSummary), skipped, parameters };
    return { result, slots };
  } finally {
    model.close();
  }
}

async function insertNew(path: string, options: PatchOptions): Promise<PatchResult> {
  checkStart(options);
  const model = openModel(path);
  const files = new ExternalFiles(model);
  try {
    const output = options.output ?? defaultOutput(path, 'lora');
    checkOutput(output, [...inputFiles(model), ...inputsOf(options)], options.force ?? false);
    const patched = new PatchedModel(model);
    const { layers, skipped } = chooseLayers(patched, options);
    const reader = new TensorReader(model, files);
    const planned = planAdapters(layers, await settled(patched, reader, layers, options));
    const start = await startAdapters(patched, reader, planned, options);
    const { tensors, deviation } = start;
    const context = { model, values: patched.values, reader };
    const adapters = await initialized(context, patched, start.adapters);
    const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
    const extras = { head: newHead(options), tensors };
    const set = options.name ?? 'default';
    const { edit, manifest } = insertAdapters(patched, set, adapters, extras, dataFile);
    await writeWithData(model, edit, output, options, dataFile);
    const norm = (i: number) => (deviation ? adapterNorm(adapters[i]!) : 0);
    const described = { output, ...describeAdapters(model, manifest, norm), skipped };
    return deviation ? { ...described, deviation: deviation() } : described;
  } finally {
    files.close();
    model.close();
  }
}

/** Adapters with the numbers that their kinds have beside the factors. */
async function initialized(
  context: WeightContext,
  patched: PatchedModel,
  adapters: readonly NewAdapter[],
): Promise<NewAdapter[]> {
  const all: NewAdapter[] = [];
  for (const adapter of adapters) {
    const kind = kindOf(adapter.record);
    checkPlace(patched, adapter.layer, kind);
    all.push(kind.init ? await kind.init(context, adapter) : adapter);
  }
  return all;
}

/** The options with a structure for every layer. */
async function settled(
  patched: PatchedModel,
  reader: TensorReader,
  layers: readonly Layer[],
  { structure, ...options }: PatchOptions,
): Promise<AdapterOptions> {
  if (structure !== 'auto') return { ...options, structure };
  const { autoStructures } = await import('../fitting/advise/auto.js');
  return { ...options, ...(await autoStructures(patched, reader, layers, options)) };
}

function newHead({ head, modelOutput, seed = 0 }: PatchOptions): NewHead | undefined {
  return head === undefined ? undefined : { plan: parseHead(head), output: modelOutput, seed };
}

/** @throws OnnxLoraError `invalid-argument` for options that would have no effect, or exclude each other */
function checkStart(options: PatchOptions): void {
  const { init, structure, data, head, modelOutput } = options;
  const mayUseData = init === 'gradient' || structure === 'auto';
  if (mayUseData && data !== undefined && head !== undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      'a new head says nothing yet about where data pull: no gradient can be taken through it',
      { hint: 'Patch without --data first and train, or leave --head out.' },
    );
  }
  if (modelOutput !== undefined && head === undefined && !mayUseData) {
    throw new OnnxLoraError('invalid-argument', 'modelOutput has no effect without a head');
  }
  const idle = mayUseData ? undefined : startDataOptions.find((key) => options[key] !== undefined);
  if (idle === undefined) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `${idle} has no effect without init gradient or structure auto`,
    {
      hint: 'Leave it out, or add --init gradient or --structure auto, with --data FILE --loss NAME.',
    },
  );
}

/**
 * The layers that the options name and that can take an adapter, beside all that the model has.
 * @throws OnnxLoraError `no-target` where none can, naming the reasons; `no-match`
 */
export function chooseLayers(
  patched: PatchedModel,
  options: Selection & Pick<AdapterOptions, 'perNode'>,
): { layers: Layer[]; all: Layer[]; skipped: Skipped[] } {
  const { model } = patched;
  const all = findLayers(patched, options.perNode);
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
      hint: 'See every layer and its reason with: onnx-lora inspect MODEL --why',
    },
  );
}
