/** A trainable linear layer behind a model's hidden states: a feature extractor becomes a classifier. */
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { OnnxLoraError } from '../errors.js';
import { NameAuthority } from '../graph/names.js';
import { dataTypeNumber, fromFloat64 } from '../onnx/dtype.js';
import { MessageEdit } from '../onnx/edit.js';
import { type AttributeValue, type NewNode, nodeRecord, outputRecord } from '../onnx/encode.js';
import { type Model, standardOpset, type ValueInfo } from '../onnx/model.js';
import { addInitializer } from '../onnx/rewrite.js';
import { generatorFor } from './init.js';
import type { NewHead } from './insert.js';
import { type Head, type ModelManifest, replaceManifest } from './manifest.js';
import type { PatchedModel } from './patched.js';

export const poolings = ['mean', 'cls', 'none'] as const;

/** What `--head` says. */
export interface HeadPlan {
  readonly classes: number;
  /** How [B, T, H] becomes [B, H]: the mean over T where the mask is 1, the first of T, or not at all. */
  readonly pooling: (typeof poolings)[number];
}

/**
 * Reads `linear:CLASSES[:mean|cls|none]`; mean where nothing is said.
 * @throws OnnxLoraError `invalid-argument`
 */
export function parseHead(text: string): HeadPlan {
  const [kind, classes, pooling = 'mean', ...rest] = text.split(':');
  const count = Number(classes);
  const known = poolings.find((name) => name === pooling);
  if (kind === 'linear' && Number.isSafeInteger(count) && count > 0 && known && rest.length === 0) {
    return { classes: count, pooling: known };
  }
  throw new OnnxLoraError(
    'invalid-argument',
    `head is ${JSON.stringify(text)}, expected linear:CLASSES or linear:CLASSES:${poolings.join('|')}`,
    { hint: 'For example --head linear:3:mean' },
  );
}

const MASK = 'attention_mask';

/**
 * Adds a head to the edit of a model: nodes, their tensors, and an output `logits`.
 * @param output the hidden states [B, T, H], or [B, H] with the pooling none
 * @throws OnnxLoraError `invalid-argument` where the output does not fit
 */
export function insertHead(
  patched: PatchedModel,
  edit: MessageEdit,
  set: string,
  plan: HeadPlan,
  { output, seed, trained, names }: Omit<NewHead, 'plan'> & { names: NameAuthority },
): Head {
  const { model } = patched;
  const hidden = hiddenStates(patched, plan, output);
  const features = hidden.shape!.at(-1) as number;
  const prefix = `lora/${set}/head`;
  const nodes: NewNode[] = [];
  const graph = edit.child(model.graph.field);
  const add = (leaf: string, opType: string, inputs: string[], attributes = {}, name?: string) => {
    const result = name ?? names.fresh(`${prefix}/${leaf}`);
    nodes.push({
      name: names.fresh(`${prefix}/${leaf}/node`),
      opType,
      inputs,
      outputs: [result],
      attributes,
    });
    return result;
  };
  const weight = names.fresh(`${prefix}/weight`);
  const bias = names.fresh(`${prefix}/bias`);
  const logits = names.fresh('logits');
  const mask = model.graph.inputs.find(({ name }) => name === MASK)?.name;
  const context = {
    add,
    opset: standardOpset(model),
    integers: integersIn(edit, model, names, prefix),
  };
  const rows = pooled(context, hidden.name, plan.pooling, mask);
  add('add', 'Add', [add('product', 'MatMul', [rows, weight]), bias], {}, logits);
  const { classes } = plan;
  const start = trained ?? {
    weight: kaiming(features, classes, seed),
    bias: fromFloat64('float32', new Float64Array(classes)),
  };
  const tensor = (name: string, dims: number[], data: Uint8Array) =>
    addInitializer(edit, model, { name, dtype: 'float32', dims, data });
  tensor(weight, [features, classes], start.weight);
  tensor(bias, [classes], start.bias);
  const lead = hidden.shape!.slice(0, plan.pooling === 'none' ? -1 : 1);
  const result = outputRecord(logits, 'float32', [...lead, plan.classes]);
  graph.append(...nodes.flatMap(nodeRecord), ...result);
  return {
    ...plan,
    features,
    input: hidden.name,
    output: logits,
    weight,
    bias,
    nodes: nodes.map(({ name }) => name),
    constants: context.integers.made,
  };
}

/**
 * An edit that gives a patched model's set a head.
 * @throws OnnxLoraError `invalid-argument` where it has one, or the output does not fit
 */
export function headEdit(patched: PatchedModel, set: ModelManifest, head: NewHead): MessageEdit {
  const { model } = patched;
  if (set.head) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${model.source.label} has a head already: ${set.head.output} of ${set.head.classes} classes`,
      { hint: 'Train it without --head, or start from a model without.' },
    );
  }
  const edit = new MessageEdit(model.source, model.range);
  const { plan, ...rest } = head;
  const names = new NameAuthority(model);
  const added = insertHead(patched, edit, set.set, plan, { ...rest, names });
  replaceManifest(edit, model, { ...set, head: added });
  return edit;
}

function hiddenStates(
  { model }: PatchedModel,
  { pooling }: HeadPlan,
  wanted: string | undefined,
): ValueInfo {
  const { outputs } = model.graph;
  const listed = outputs.map(({ name }) => name).join(', ');
  const found = wanted === undefined ? outputs[0] : outputs.find(({ name }) => name === wanted);
  if (!found || (wanted === undefined && outputs.length > 1)) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${model.source.label} has the outputs ${listed}, expected ${wanted ?? 'one'} for the head`,
      { hint: 'Choose the hidden states with --model-output.' },
    );
  }
  const { shape, dataType } = found;
  const ranks = pooling === 'none' ? [2, 3] : [3];
  const fits = shape && ranks.includes(shape.length) && typeof shape.at(-1) === 'number';
  if (fits && dataType === dataTypeNumber('float32')) return found;
  throw new OnnxLoraError(
    'invalid-argument',
    `the output ${found.name} is [${shape?.join(', ') ?? '?'}], expected float32 of ${ranks.join(' or ')} axes with a fixed last one for a head with ${pooling}`,
    { hint: 'Choose another pooling (linear:CLASSES:none for [B, H]), or another --model-output.' },
  );
}

interface Context {
  add(
    leaf: string,
    opType: string,
    inputs: string[],
    attributes?: Record<string, AttributeValue>,
  ): string;
  readonly opset: number;
  integers(leaf: string, values: readonly number[], dims?: readonly number[]): string;
}

function pooled(
  c: Context,
  x: string,
  pooling: HeadPlan['pooling'],
  mask: string | undefined,
): string {
  if (pooling === 'none') return x;
  if (pooling === 'cls') {
    return c.add('first', 'Gather', [x, c.integers('first_index', [0], [])], { axis: { int: 1 } });
  }
  if (mask === undefined) {
    const keep = { keepdims: { int: 0 } };
    if (c.opset < 18) return c.add('mean', 'ReduceMean', [x], { ...keep, axes: { ints: [1] } });
    return c.add('mean', 'ReduceMean', [x, c.integers('mean_axis', [1])], keep);
  }
  const ones = c.add('mask', 'Cast', [mask], { to: { int: dataTypeNumber('float32') } });
  const column =
    c.opset < 13
      ? c.add('mask_column', 'Unsqueeze', [ones], { axes: { ints: [2] } })
      : c.add('mask_column', 'Unsqueeze', [ones, c.integers('mask_axis', [2])]);
  const sum = (leaf: string, value: string) => {
    const keep = { keepdims: { int: 0 } };
    if (c.opset < 13) return c.add(leaf, 'ReduceSum', [value], { ...keep, axes: { ints: [1] } });
    return c.add(leaf, 'ReduceSum', [value, c.integers(`${leaf}_axis`, [1])], keep);
  };
  const kept = c.add('kept', 'Mul', [x, column]);
  return c.add('mean', 'Div', [sum('total', kept), sum('count', column)]);
}

/** Integer constants of the head, and their names. */
function integersIn(edit: MessageEdit, model: Model, names: NameAuthority, prefix: string) {
  const made: string[] = [];
  const make = (
    leaf: string,
    values: readonly number[],
    dims: readonly number[] = [values.length],
  ) => {
    const name = names.fresh(`${prefix}/${leaf}`);
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    addInitializer(edit, model, { name, dtype: 'int64', dims, data });
    made.push(name);
    return name;
  };
  return Object.assign(make, { made });
}

/** Kaiming uniform, as torch.nn.Linear starts: within ±1/√in. */
function kaiming(rows: number, columns: number, seed: number): Uint8Array {
  const random = generatorFor(seed, 'head', 'weight');
  const bound = 1 / Math.sqrt(rows);
  const draw = () => (2 * uniformFloat64(random) - 1) * bound;
  return fromFloat64('float32', Float64Array.from({ length: rows * columns }, draw));
}

/** Takes the heads of sets out again. */
export function removeHeads(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const { graph } = patched.model;
  const root = edit.child(graph.field);
  for (const head of sets.flatMap(({ head: one }) => (one ? [one] : []))) {
    const nodes = new Set(head.nodes);
    for (const node of graph.nodes) if (nodes.has(node.name)) root.remove(node.field);
    const tensors = [head.weight, head.bias, ...head.constants];
    for (const name of tensors) root.remove(patched.initializer(name).field);
    // Before IR 4 they are inputs as well.
    for (const input of graph.inputs) if (tensors.includes(input.name)) root.remove(input.field);
    for (const output of graph.outputs) if (output.name === head.output) root.remove(output.field);
  }
}
