/** New adapters beside the layers of a model. */

import { basename } from 'node:path';
import { type AdapterOptions, plannedOptions } from '../adapters/edit/adapter-options.js';
import { type NewHead, parseHead } from '../adapters/edit/head.js';
import { adapterNorm, insertAdapters } from '../adapters/edit/insert.js';
import { planAdapters } from '../adapters/edit/new-adapters.js';
import type { NewAdapter } from '../adapters/factors/factors.js';
import { checkPlace } from '../adapters/kinds/check.js';
import { kindOf, kinds } from '../adapters/kinds/index.js';
import { describeAdapters } from '../adapters/kinds/summary.js';
import { type Division, divideLayers } from '../adapters/model/layer-parts.js';
import type { Layer } from '../adapters/model/layers.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import { OnnxLoraError } from '../errors.js';
import { initializeAdapters } from '../fitting/init/initialize.js';
import { hasPackedModules } from '../formats/model-folder/packed-modules.js';
import { NewDataFile } from '../onnx/data-file.js';
import { checkOutput } from '../onnx/write.js';
import type { ResolvedOf } from '../options/option.js';
import { pickOptions } from '../options/resolve.js';
import { startTolerance } from '../runtime/tolerance.js';
import type { GuardReport } from '../training/guard/guard.js';
import type { GuardListener } from '../training/weight-gradients.js';
import { apart, runsApart } from './apart.js';
import { chooseLayers } from './chosen-layers.js';
import { inputFiles, inputsOf } from './inputs.js';
import { DEFAULT_NAME } from './options/name.js';
import type { patchOptions } from './options/patch.js';
import { defaultOutput, writeWithData } from './output.js';
import type { PatchResult } from './patch-result.js';

type NewAdapterOptions = ResolvedOf<typeof patchOptions>;

/**
 * Inserts new adapters into the model at `path`. They start at zero: the patched model computes what the
 * base model does. With `init: 'pissa'` it does so up to the rounding of its weights.
 * @throws OnnxLoraError `no-target`, `no-match`, `invalid-argument`, and those of reading and writing
 */
export async function addAdapters(path: string, options: NewAdapterOptions): Promise<PatchResult> {
  if (!runsModel(options) || !runsApart(path)) return await addAdaptersHere(path, options);
  return await apart({
    work: 'add-adapters',
    paths: [path],
    options,
    label: `the run of ${path}`,
    advice: () => 'Then patch again.',
    stop: 'ask',
  });
}

/** Whether the model is run, and not only edited. */
function runsModel({ verify, init, structure, data }: NewAdapterOptions): boolean {
  return verify || init === 'gradient' || (structure === 'auto' && data !== undefined);
}

/** As `addAdapters`, in this process. */
export async function addAdaptersHere(
  path: string,
  options: NewAdapterOptions,
): Promise<PatchResult> {
  checkStart(options);
  return await withModel(path, async (opened) => {
    const { result, isExact } = await insertNew(opened, path, options);
    if (!options.verify) return result;
    const how = isExact ? { ...options, tolerance: startTolerance(opened.model) } : options;
    const { verifyOn } = await import('./verify.js');
    const verification = await verifyOn(opened.model, { path }, { path: result.output }, how);
    return { ...result, verification };
  });
}

async function insertNew(
  opened: OpenedModel,
  path: string,
  options: NewAdapterOptions,
): Promise<{ result: PatchResult; isExact: boolean }> {
  const { model, files, patched, reader } = opened;
  const output = options.output ?? defaultOutput(path, 'lora');
  checkOutput(output, [...inputFiles(model), ...inputsOf(options)], options.force);
  const division = divisionOf(path, options);
  const { layers, skipped } = chooseLayers(patched, options, (all) =>
    divideLayers(patched, reader, all, division),
  );
  noteWhole(opened, layers, division, options);
  const found: { guard?: GuardReport } = {};
  const listening = {
    ...options,
    onGuard: (guard: GuardReport) => Object.assign(found, { guard }),
  };
  const planned = planAdapters(layers, await settled(opened, layers, listening));
  const init = await initializeAdapters(patched, reader, planned, listening);
  const { tensors, deviation } = init;
  const adapters = await initialized(opened, init.adapters);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  const extras = { head: newHead(options), tensors };
  const set = options.name ?? DEFAULT_NAME;
  const { edit, manifest } = insertAdapters(patched, set, adapters, extras, dataFile);
  await writeWithData(model, edit, output, options, dataFile);
  const norm = (i: number) => (deviation ? adapterNorm(adapters[i]!) : 0);
  const described = { output, ...describeAdapters(model, manifest, norm), skipped, ...found };
  // Weights that were split are rounded.
  if (deviation) return { result: { ...described, deviation: deviation() }, isExact: false };
  return { result: described, isExact: adapters.every(startsExact) };
}

/** @throws OnnxLoraError `invalid-argument` for parts of what reads all of a layer's weight */
function divisionOf(path: string, { parts, ...options }: NewAdapterOptions): Division {
  const reading = readerOfAll(options);
  if (reading === undefined) return { parts, isPackedModel: hasPackedModules(path) };
  if (parts !== 'split') return { parts: 'whole' };
  throw new OnnxLoraError(
    'invalid-argument',
    `\`parts\` split makes adapters that know their own columns, and ${reading} reads the weight of the whole layer`,
    { hint: 'Leave `parts` out for one adapter of the whole layer, or take plain LoRA.' },
  );
}

/** The option that makes adapters of all columns of a weight at once. */
function readerOfAll({
  init,
  structure,
}: Pick<NewAdapterOptions, 'init' | 'structure'>): string | undefined {
  if (init === 'pissa' || init === 'gradient') return `\`init\` ${init}`;
  return structure === 'auto' ? '`structure` auto' : undefined;
}

/** A note where modules get one adapter that would have their own otherwise. */
function noteWhole(
  { patched, reader }: OpenedModel,
  layers: readonly Layer[],
  { parts }: Division,
  { parts: asked, onNote, ...options }: NewAdapterOptions,
): void {
  if (parts === asked || onNote === undefined) return;
  const divided = divideLayers(patched, reader, layers, { parts: 'auto' });
  const first = divided.find(({ part }) => part);
  if (!first) return;
  onNote(
    `${first.whole![0]} and others compute several modules: ${readerOfAll(options)} gives them one adapter, which PEFT does not know`,
  );
}

function startsExact({ record, layer }: NewAdapter): boolean {
  return layer.linear.every(({ weight }) => kindOf(record).startsExact(weight));
}

/** Adapters with the numbers that their kinds have beside the factors. */
async function initialized(
  { model, patched, reader }: OpenedModel,
  adapters: readonly NewAdapter[],
): Promise<NewAdapter[]> {
  const context = { model, values: patched.values, reader };
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
  { patched, reader }: OpenedModel,
  layers: readonly Layer[],
  { structure, ...options }: NewAdapterOptions & GuardListener,
): Promise<AdapterOptions> {
  const own = pickOptions(plannedOptions, options);
  if (structure !== 'auto') return { ...own, structure };
  const { autoStructures } = await import('../fitting/advise/auto.js');
  return { ...own, ...(await autoStructures(patched, reader, layers, options)) };
}

function newHead({ head, modelOutput, seed }: NewAdapterOptions): NewHead | undefined {
  return head === undefined ? undefined : { plan: parseHead(head), output: modelOutput, seed };
}

/** Weights and gradients say nothing of an A·B that is multiplied with a weight. */
function checkReadStart({ init, structure, kind }: NewAdapterOptions): void {
  const isRead = init === 'pissa' || init === 'gradient' || structure === 'auto';
  if (!isRead || kinds[kind].isSum) return;
  const what = structure === 'auto' ? '`structure` auto' : `\`init\` ${init}`;
  throw new OnnxLoraError(
    'invalid-argument',
    `${what} looks for A·B in weights or gradients, and ${kinds[kind].label} multiplies it with the weight`,
    { hint: 'Choose a structure, and leave `init` out or take `kind` lora.' },
  );
}

/** @throws OnnxLoraError `invalid-argument` for options that exclude each other */
function checkStart(options: NewAdapterOptions): void {
  const { data, head } = options;
  checkReadStart(options);
  if (data === undefined || head === undefined) return;
  throw new OnnxLoraError(
    'invalid-argument',
    'a new head is still at random: no gradient can be taken through it',
    { hint: 'Patch without `data` first and train, or leave `head` out.' },
  );
}
