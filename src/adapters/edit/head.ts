/** A trainable linear layer after a model's hidden states: a feature extractor becomes a classifier. */
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { OnnxLoraError } from '../../errors.js';
import { NameAuthority } from '../../graph/names.js';
import {
  type DataTypeName,
  dataTypeNumber,
  findDataType,
  fromFloat64,
  isFloating,
} from '../../onnx/dtype.js';
import { MessageEdit } from '../../onnx/edit.js';
import { type NewNode, nodeRecord, outputRecord } from '../../onnx/encode.js';
import {
  type Dim,
  type Model,
  nodeLabel,
  standardOpset,
  type ValueInfo,
} from '../../onnx/model.js';
import { addInitializer } from '../../onnx/rewrite.js';
import { generatorFor } from '../../random.js';
import { type Head, type ModelManifest, replaceManifest } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';

export const poolings = ['mean', 'cls', 'none'] as const;

/** Size and pooling of a classification head: what the option `head` gives. */
export interface HeadPlan {
  /** Number of classes: the size of the output. */
  readonly classes: number;
  /**
   * The pooling of [B, T, H] to [B, H]: the mean over T where the mask is 1 (zeros where it is nowhere), the
   * first of T, or not at all.
   */
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
    { hint: "For example `head: 'linear:3:mean'`" },
  );
}

/**
 * Adds a head to the edit of a model: nodes, their tensors, and an output `logits` of float32.
 * @param output the hidden states [B, T, H], or [.., H] with the pooling none
 * @throws OnnxLoraError `invalid-argument` where the output does not fit, `adapter-mismatch` where
 * numbers that were trained already do not
 */
export function insertHead(
  { model }: PatchedModel,
  edit: MessageEdit,
  set: string,
  plan: HeadPlan,
  { output, seed, trained, names }: Omit<NewHead, 'plan'> & { names: NameAuthority },
): Head {
  const hidden = hiddenStates(model, plan, output);
  const features = hidden.shape.at(-1) as number;
  if (trained && trained.features !== features) throw otherSize(model, hidden, trained.features);
  const { pooling, classes } = plan;
  const start = trained ?? untrained(features, classes, seed);
  const parts = new HeadParts(edit, model, names, `lora/${set}/head`);
  const weight = parts.tensor('weight', 'float32', [features, classes], start.weight);
  const bias = parts.tensor('bias', 'float32', [classes], start.bias);
  const rows = pooled(parts, asFloat32(parts, hidden), pooling, maskOf(model, pooling));
  const logits = names.fresh('logits');
  parts.node('add', 'Add', [parts.node('product', 'MatMul', [rows, weight]), bias], {}, logits);
  const lead = hidden.shape.slice(0, pooling === 'none' ? -1 : 1);
  const graph = edit.child(model.graph.field);
  graph.append(...parts.nodes.flatMap(nodeRecord));
  graph.append(...outputRecord(logits, 'float32', [...lead, classes]));
  const { constants } = parts;
  const nodes = parts.nodes.map(({ name }) => name);
  return { ...plan, features, input: hidden.name, output: logits, weight, bias, nodes, constants };
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
      { hint: 'Train it without `head`, or start from a model without.' },
    );
  }
  const edit = new MessageEdit(model.source, model.range);
  const { plan, ...rest } = head;
  const names = new NameAuthority(model);
  const added = insertHead(patched, edit, set.set, plan, { ...rest, names });
  replaceManifest(edit, model, { ...set, head: added });
  return edit;
}

interface HiddenStates extends ValueInfo {
  readonly shape: readonly Dim[];
}

function hiddenStates(
  model: Model,
  { pooling }: HeadPlan,
  wanted: string | undefined,
): HiddenStates {
  const { outputs } = model.graph;
  const listed = outputs.map(({ name }) => name).join(', ');
  const found = wanted === undefined ? outputs[0] : outputs.find(({ name }) => name === wanted);
  if (!found || (wanted === undefined && outputs.length > 1)) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${model.source.label} has the outputs ${listed}, expected ${wanted ?? 'one'} for the head`,
      { hint: 'Choose the hidden states with `modelOutput`.' },
    );
  }
  const { shape, dataType } = found;
  const dtype = findDataType(dataType);
  const ranks = pooling === 'none' ? [2, 3] : [3];
  const fits = shape && ranks.includes(shape.length) && typeof shape.at(-1) === 'number';
  if (fits && dtype && isFloating(dtype)) return { ...found, shape };
  throw new OnnxLoraError(
    'invalid-argument',
    `the output ${found.name} is ${dtype ?? 'no tensor'} [${shape?.map((dim) => dim ?? '?').join(', ') ?? '?'}], expected floats of ${ranks.join(' or ')} axes with a fixed last one for a head with ${pooling}`,
    { hint: 'Choose another pooling (linear:CLASSES:none for [B, H]), or another `modelOutput`.' },
  );
}

function otherSize(model: Model, { name, shape }: HiddenStates, features: number): OnnxLoraError {
  return new OnnxLoraError(
    'adapter-mismatch',
    `the head was trained on hidden states of ${features} features, the output ${name} of ${model.source.label} has ${shape.at(-1)}`,
    { hint: 'Adapters fit the model they were trained on.' },
  );
}

const MASK = 'attention_mask';

/** The mask that the mean is taken with, if the model has one. */
function maskOf({ graph }: Model, pooling: HeadPlan['pooling']): string | undefined {
  const mask = pooling === 'mean' ? graph.inputs.find(({ name }) => name === MASK) : undefined;
  if (!mask?.shape || mask.shape.length === 2) return mask?.name;
  throw new OnnxLoraError(
    'invalid-argument',
    `${MASK} is [${mask.shape.map((dim) => dim ?? '?').join(', ')}], expected [B, T] for the mean over T`,
    { hint: 'Choose linear:CLASSES:cls, which reads no mask.' },
  );
}

/** The nodes and tensors of a head as they are made. */
class HeadParts {
  readonly nodes: NewNode[] = [];
  /** Names of the initializers that do not train. */
  readonly constants: string[] = [];

  constructor(
    private readonly edit: MessageEdit,
    private readonly model: Model,
    private readonly names: NameAuthority,
    private readonly prefix: string,
  ) {}

  /** Adds a node and gives the name of its output. */
  node(
    leaf: string,
    opType: string,
    inputs: readonly string[],
    attributes: NewNode['attributes'] & {} = {},
    output = this.names.fresh(`${this.prefix}/${leaf}`),
  ): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}/node`);
    this.nodes.push({ name, opType, inputs, outputs: [output], attributes });
    return output;
  }

  /** A node that works along an axis, which is an attribute before the opset `since`, then an input. */
  along(
    axis: number,
    since: number,
    leaf: string,
    opType: string,
    input: string,
    attributes: NewNode['attributes'] = {},
  ): string {
    if (standardOpset(this.model) < since) {
      return this.node(leaf, opType, [input], { ...attributes, axes: { ints: [axis] } });
    }
    return this.node(leaf, opType, [input, this.integer(`${leaf}_axis`, [1], axis)], attributes);
  }

  /** The greater of a float32 tensor and a number, which is an attribute before opset 11, then an input. */
  atLeast(least: number, leaf: string, input: string): string {
    if (standardOpset(this.model) < 11) {
      return this.node(leaf, 'Clip', [input], { min: { float: least } });
    }
    const data = fromFloat64('float32', Float64Array.of(least));
    return this.node(leaf, 'Clip', [input, this.constant(`${leaf}_least`, 'float32', [], data)]);
  }

  integer(leaf: string, dims: readonly number[], value: number): string {
    const data = new Uint8Array(BigInt64Array.of(BigInt(value)).buffer);
    return this.constant(leaf, 'int64', dims, data);
  }

  private constant(
    leaf: string,
    dtype: DataTypeName,
    dims: readonly number[],
    data: Uint8Array,
  ): string {
    const name = this.tensor(leaf, dtype, dims, data);
    this.constants.push(name);
    return name;
  }

  tensor(leaf: string, dtype: DataTypeName, dims: readonly number[], data: Uint8Array): string {
    const name = this.names.fresh(`${this.prefix}/${leaf}`);
    addInitializer(this.edit, this.model, { name, dtype, dims, data });
    return name;
  }
}

function asFloat32(parts: HeadParts, { name, dataType }: HiddenStates): string {
  const float32 = dataTypeNumber('float32');
  return dataType === float32 ? name : parts.node('float32', 'Cast', [name], castTo(float32));
}

function castTo(type: number) {
  return { to: { int: type } };
}

const DROP_AXIS = { keepdims: { int: 0 } };

/** [B, T, H] to [B, H] */
function pooled(
  parts: HeadParts,
  x: string,
  pooling: HeadPlan['pooling'],
  mask: string | undefined,
): string {
  if (pooling === 'none') return x;
  if (pooling === 'cls') {
    const first = parts.integer('first_index', [], 0);
    return parts.node('first', 'Gather', [x, first], { axis: { int: 1 } });
  }
  if (mask === undefined) return parts.along(1, 18, 'mean', 'ReduceMean', x, DROP_AXIS);
  const ones = parts.node('mask', 'Cast', [mask], castTo(dataTypeNumber('float32')));
  const column = parts.along(2, 13, 'mask_column', 'Unsqueeze', ones);
  const kept = parts.node('kept', 'Mul', [x, column]);
  const total = parts.along(1, 13, 'total', 'ReduceSum', kept, DROP_AXIS);
  const count = parts.along(1, 13, 'count', 'ReduceSum', column, DROP_AXIS);
  return parts.node('mean', 'Div', [total, parts.atLeast(LEAST_COUNT, 'divisor', count)]);
}

// Below every count but zero: a row without tokens has the mean zero, as in sentence-transformers.
const LEAST_COUNT = 1e-9;

/** As torch.nn.Linear starts, but for the bias: the weight uniform within ±1/√H, the bias zero. */
function untrained(features: number, classes: number, seed: number) {
  const random = generatorFor(seed, 'head', 'weight');
  const bound = 1 / Math.sqrt(features);
  const draw = () => (2 * uniformFloat64(random) - 1) * bound;
  const weight = Float64Array.from({ length: features * classes }, draw);
  return {
    weight: fromFloat64('float32', weight),
    bias: fromFloat64('float32', new Float64Array(classes)),
  };
}

/**
 * Takes the heads of sets out again.
 * @throws OnnxLoraError `unsupported` where something that stays reads one
 */
export function removeHeads(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const { graph } = patched.model;
  const root = edit.child(graph.field);
  const heads = sets.flatMap(({ head }) => (head ? [head] : []));
  const nodes = new Set(heads.flatMap((head) => head.nodes));
  for (const { output } of heads) checkUnread(patched, output, nodes);
  for (const node of graph.nodes) if (nodes.has(node.name)) root.remove(node.field);
  const tensors = heads.flatMap(({ weight, bias, constants }) => [weight, bias, ...constants]);
  for (const name of tensors) root.remove(patched.initializer(name).field);
  // Before IR 4 they are inputs as well.
  for (const input of graph.inputs) if (tensors.includes(input.name)) root.remove(input.field);
  const outputs = heads.map(({ output }) => output);
  for (const output of graph.outputs) if (outputs.includes(output.name)) root.remove(output.field);
}

function checkUnread(
  { model, values }: PatchedModel,
  output: string,
  removed: ReadonlySet<string>,
): void {
  const uses = values.resolve(model.graph, output)?.uses ?? [];
  const reader = uses.find(({ node }) => node && !removed.has(node.name))?.node;
  if (!reader) return;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: ${nodeLabel(reader)} reads ${output}, the output of a head that is to be taken out`,
    { node: reader.name, hint: 'Take the adapter set of that node out as well, or first.' },
  );
}

/** A trainable output layer to insert. */
export interface NewHead {
  /** Its size and its pooling. */
  readonly plan: HeadPlan;
  /** The hidden states; may be left out where the model has one output. */
  readonly output?: string | undefined;
  /** Of the initial values, where `trained` has none. */
  readonly seed: number;
  /** Its numbers where it was trained already: weight [H, classes] and bias [classes], float32. */
  readonly trained?:
    | {
        /** H, the size of the hidden states. */
        readonly features: number;
        /** [features, classes], float32, row by row. */
        readonly weight: Uint8Array;
        /** [classes], float32. */
        readonly bias: Uint8Array;
      }
    | undefined;
}
