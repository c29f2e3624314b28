/** Damage to models: to their bytes, to their records, and to what these mean. */
import onnxProto from 'onnx-proto';
import type { GraphProto, NodeProto, TensorProto, ValueProto } from '../../test/support/models.js';
import type { Nesting } from '../../test/support/wire.js';
import { damageBytes } from '../mutate/bytes.js';
import { oddInteger, oddName } from '../mutate/odd.js';
import { damageMessage } from '../mutate/protobuf.js';
import type { Random } from '../random.js';

const { ModelProto } = onnxProto.onnx;
type ModelProto = onnxProto.onnx.IModelProto;
type AttributeProto = onnxProto.onnx.IAttributeProto;

const entry: Nesting = {};
const type: Nesting = { 1: { 2: { 1: {} } } };
const valueInfo: Nesting = { 2: type, 4: entry };
const tensor: Nesting = { 13: entry };
const inner: Nesting = {
  1: { 5: { 5: tensor }, 9: entry },
  5: tensor,
  11: valueInfo,
  12: valueInfo,
  13: valueInfo,
};
const node: Nesting = { 5: { 5: tensor, 6: inner, 11: inner }, 9: entry };
const graph: Nesting = { ...inner, 1: node, 15: { 1: tensor, 2: tensor } };
const model: Nesting = { 7: graph, 8: {}, 14: entry, 25: { 7: node, 9: {}, 11: { 5: tensor } } };

/** One to four of: another meaning, another record, other bytes. */
export function damageModel(bytes: Uint8Array, random: Random): Uint8Array {
  let damaged = bytes;
  for (let i = random.below(4); i >= 0; i--) {
    const kind = random.below(10);
    if (kind < 6) damaged = damageMeaning(damaged, random);
    else if (kind < 9) damaged = damageMessage(damaged, model, random);
    else damaged = damageBytes(damaged, random);
  }
  return damaged;
}

/** A model that means something else. What is not a model any more gets other bytes. */
function damageMeaning(bytes: Uint8Array, random: Random): Uint8Array {
  let decoded: ModelProto;
  try {
    decoded = ModelProto.decode(bytes);
    random.pick(damages)(decoded, random);
    return ModelProto.encode(decoded).finish();
  } catch {
    return damageBytes(bytes, random);
  }
}

type Damage = (model: ModelProto, random: Random) => void;

const damages: readonly Damage[] = [
  renameNode,
  renameNode,
  renameValue,
  renameValue,
  renameInitializer,
  rewire,
  rewire,
  retypeNode,
  moveNode,
  damageAttribute,
  damageAttribute,
  damageTensor,
  damageTensor,
  damageValue,
  wrapInBranch,
  copyNode,
  damageOpset,
  damageFunction,
  damageMetadata,
];

/** Every graph of the model, those inside nodes and functions too. */
function graphsOf(decoded: ModelProto): GraphProto[] {
  const inside = (one: GraphProto): GraphProto[] => [
    one,
    ...nodesOf(one).flatMap(({ attribute }) =>
      (attribute ?? []).flatMap(({ g, graphs }) =>
        [...(g ? [g] : []), ...(graphs ?? [])].flatMap(inside),
      ),
    ),
  ];
  return [decoded.graph, ...(decoded.functions ?? [])].flatMap((one) =>
    one ? inside(one as GraphProto) : [],
  );
}

function nodesOf(one: GraphProto): NodeProto[] {
  one.node = own(one.node);
  return one.node;
}

/** A list of its owner's own: those that were not in the file are all the same one. */
function own<T>(list: readonly T[] | null | undefined): T[] {
  return [...(list ?? [])];
}

function anyGraph(decoded: ModelProto, random: Random): GraphProto {
  return random.pick(graphsOf(decoded));
}

function anyNode(decoded: ModelProto, random: Random): NodeProto {
  const nodes = graphsOf(decoded).flatMap(nodesOf);
  return random.pick(nodes);
}

/** Names of nodes, so that two get the same, in one graph or in two. */
function renameNode(decoded: ModelProto, random: Random): void {
  const names = graphsOf(decoded).flatMap((one) => nodesOf(one).map(({ name }) => name ?? ''));
  anyNode(decoded, random).name = oddName(names, random);
}

function valuesOf(decoded: ModelProto): string[] {
  return graphsOf(decoded).flatMap((one) => [
    ...nodesOf(one).flatMap(({ input, output }) => [...(input ?? []), ...(output ?? [])]),
    ...(one.initializer ?? []).map(({ name }) => name ?? ''),
  ]);
}

/** A value under another name wherever it is made and read: a valid model with an odd name in it. */
function renameValue(decoded: ModelProto, random: Random): void {
  const values = valuesOf(decoded);
  const old = random.pick(values);
  const name = oddName(random.chance(0.2) ? values : [], random);
  const renamed = (known: string[] | null | undefined) =>
    (known ?? []).map((one) => (one === old ? name : one));
  for (const one of graphsOf(decoded)) {
    for (const made of nodesOf(one)) {
      made.input = renamed(made.input);
      made.output = renamed(made.output);
    }
    const named = [one.initializer, one.input, one.output, one.valueInfo];
    // Inputs and outputs of functions are mere names.
    for (const item of named.flatMap((list) => (list ?? []) as { name?: string | null }[])) {
      if (item.name === old) item.name = name;
    }
  }
}

function renameInitializer(decoded: ModelProto, random: Random): void {
  const { initializer } = anyGraph(decoded, random);
  if (initializer?.length) {
    random.pick(initializer).name = oddName(valuesOf(decoded), random);
  }
}

/** A node reads or makes another value: cycles, values made twice or never. */
function rewire(decoded: ModelProto, random: Random): void {
  const made = anyNode(decoded, random);
  const key = random.chance(0.7) ? 'input' : 'output';
  const list = own(made[key]);
  made[key] = list;
  const values = valuesOf(decoded);
  const at = random.below(list.length + 1);
  if (random.chance(0.2)) list.splice(at, 1);
  else if (random.chance(0.1)) list.push(...Array<string>(random.pick([1, 5, 300])).fill('x'));
  else list[at] = random.chance(0.8) ? random.pick(values) : oddName([], random);
}

const operators: readonly string[] = [
  ...['MatMul', 'Gemm', 'Conv', 'Identity', 'Transpose', 'Cast', 'DequantizeLinear', 'Constant'],
  ...['Add', 'If', 'Loop', 'Scan', 'MatMulNBits', 'FusedMatMul', 'Softmax', 'Reshape', 'Block'],
  ...['Slice', 'Split', 'Attention', 'LayerNormalization', 'QuantizeLinear', '', '__proto__'],
];

function retypeNode(decoded: ModelProto, random: Random): void {
  const made = anyNode(decoded, random);
  if (random.chance(0.7)) made.opType = random.pick(operators);
  else made.domain = random.pick(['', 'ai.onnx', 'com.microsoft', 'own', 'constructor']);
}

/** Nodes in another order, in another graph, or gone. */
function moveNode(decoded: ModelProto, random: Random): void {
  const from = nodesOf(anyGraph(decoded, random));
  const [moved] = from.splice(random.below(from.length), 1);
  const to = nodesOf(anyGraph(decoded, random));
  if (moved && random.chance(0.8)) to.splice(random.below(to.length + 1), 0, moved);
}

function copyNode(decoded: ModelProto, random: Random): void {
  const copied = anyNode(decoded, random);
  const to = nodesOf(anyGraph(decoded, random));
  const copies = random.pick([1, 1, 1, 50]);
  for (let i = 0; i < copies; i++) to.push({ ...copied });
}

/** A node into a branch of an If of its own, and an If into itself now and then. */
function wrapInBranch(decoded: ModelProto, random: Random): void {
  const nodes = nodesOf(anyGraph(decoded, random));
  const at = random.below(nodes.length);
  let wrapped = nodes[at];
  const depth = random.pick([1, 2, 70]);
  for (let i = 0; wrapped && i < depth; i++) {
    const outputs: string[] = wrapped.output ?? [];
    const branch = { name: 'g', node: [wrapped], output: outputs.map((name) => ({ name })) };
    const attribute = ['then_branch', 'else_branch'].map((name) => ({ name, type: 5, g: branch }));
    const once: boolean = i > 0;
    wrapped = {
      ...{ opType: 'If', name: wrapped.name ?? '', input: ['condition'], output: outputs },
      attribute: once ? attribute.slice(0, 1) : attribute,
    };
    nodes[at] = wrapped;
  }
}

/** An attribute of another value, another type, another name, or two of one name. */
function damageAttribute(decoded: ModelProto, random: Random): void {
  const all = graphsOf(decoded).flatMap((one) => nodesOf(one).map((made) => made));
  const made = random.pick(all);
  const list: AttributeProto[] = own(made.attribute);
  made.attribute = list;
  const known = [
    'axis',
    'perm',
    'transB',
    'alpha',
    'to',
    'value',
    'bits',
    'K',
    'N',
    'body',
    'group',
  ];
  const { name = random.pick(known) } = list.length > 0 ? random.pick(list) : {};
  const others: readonly AttributeProto[] = [
    { name, type: 2, i: oddInteger(random) },
    { name, type: 1, f: random.pick([0, -1, 1e38, Number.NaN, Number.POSITIVE_INFINITY]) },
    { name, type: 3, s: Buffer.from(oddName([], random)) },
    { name, type: 7, ints: [oddInteger(random), oddInteger(random)] },
    { name, type: 7, ints: Array<number>(random.pick([0, 3, 70_000])).fill(1) },
    { name, type: 6, floats: [Number.NaN] },
    { name, type: 4, t: { dims: [oddInteger(random)], dataType: random.below(30) } },
    { name, type: 5, g: { node: [made] } },
    { name, type: 5, g: {} },
    { name, refAttrName: oddName(['axis'], random) },
    { name: oddName([], random), type: 2, i: 1 },
  ];
  const other = random.pick(others);
  const at = list.findIndex((one) => one.name === name);
  if (at >= 0 && random.chance(0.7)) list[at] = other;
  else list.push(other);
}

function tensorsOf(decoded: ModelProto): TensorProto[] {
  return graphsOf(decoded).flatMap((one) => [
    ...(one.initializer ?? []),
    ...nodesOf(one).flatMap(({ attribute }) =>
      (attribute ?? []).flatMap(({ t }) => (t ? [t] : [])),
    ),
  ]);
}

function damageTensor(decoded: ModelProto, random: Random): void {
  const tensors = tensorsOf(decoded);
  if (tensors.length === 0) return;
  const damaged = random.pick(tensors);
  const dims = (damaged.dims ?? []).map(Number);
  const kinds: readonly TensorProto[] = [
    { dataType: random.below(30) },
    { dims: dims.map((dim) => (random.chance(0.5) ? dim : oddInteger(random))) },
    { dims: [...dims].reverse() },
    { dims: [...dims, 1] },
    { dims: [] },
    { rawData: new Uint8Array() },
    { rawData: damageBytes(damaged.rawData ?? new Uint8Array(), random) },
    { floatData: [1, Number.NaN, 3] },
    { int64Data: [oddInteger(random)] },
    { segment: { begin: 0, end: 1 } },
    { dataLocation: 1 },
    {
      dataLocation: 1,
      externalData: [{ key: 'location', value: oddName(['model.onnx'], random) }],
    },
  ];
  Object.assign(damaged, random.pick(kinds));
}

/** Inputs, outputs and value infos: other types and shapes, doubled, gone. */
function damageValue(decoded: ModelProto, random: Random): void {
  const graph = decoded.graph ?? {};
  const key = random.pick(['input', 'output', 'valueInfo'] as const);
  const list: ValueProto[] = own(graph[key]);
  graph[key] = list;
  const at = random.below(list.length);
  const known = list[at];
  const dim = [{ dimValue: oddInteger(random) }, { dimParam: oddName([], random) }, {}];
  const type = { tensorType: { elemType: random.below(30), shape: { dim } } };
  const kind = random.below(5);
  if (!known || kind === 0) list.push({ name: oddName(valuesOf(decoded), random), type });
  else if (kind === 1) list.splice(at, 1);
  else if (kind === 2) list.push(known);
  else list[at] = { ...known, type: random.chance(0.2) ? { sequenceType: {} } : type };
}

function damageOpset(decoded: ModelProto, random: Random): void {
  const imports = own(decoded.opsetImport);
  decoded.opsetImport = imports;
  const version = random.pick([0, 1, 6, 7, 9, 10, 11, 13, 18, 23, 26, 999, -1, 2 ** 40]);
  const kind = random.below(5);
  if (kind === 0) decoded.irVersion = random.pick([0, 1, 3, 4, 10, 999]);
  else if (kind === 1) imports.splice(0, 1);
  else if (kind === 2) imports.push({ domain: oddName(['', 'ai.onnx'], random), version });
  else if (imports[0]) imports[0].version = version;
}

/** Functions that call themselves or each other, or are called as operators are. */
function damageFunction(decoded: ModelProto, random: Random): void {
  const functions = own(decoded.functions);
  decoded.functions = functions;
  const known = random.chance(0.5) ? functions[0] : undefined;
  const name = known?.name ?? random.pick(['MatMul', 'Relu', 'A', 'B', '__proto__']);
  const domain = known?.domain ?? random.pick(['', 'own', 'ai.onnx']);
  const call = { opType: random.pick([name, 'A', 'B']), domain, input: ['a'], output: ['c'] };
  const calls = Array.from({ length: random.pick([1, 2, 10]) }, () => call);
  const made = { name, domain, input: ['a'], output: ['c'], node: calls };
  if (known && random.chance(0.5)) known.node = [...(known.node ?? []), call];
  else functions.push(made);
  if (random.chance(0.5)) nodesOf(decoded.graph ?? {}).push({ ...call, input: ['x'] });
}

function damageMetadata(decoded: ModelProto, random: Random): void {
  const keys = ['onnx_lora.adapters.default', 'onnx_lora.adapters.', 'onnx_lora.slots', 'labels'];
  const value = random.pick(['', '{}', 'null', '[]', '{"version":1}', '"x"', '1e999']);
  const entries = own(decoded.metadataProps);
  decoded.metadataProps = entries;
  const known = entries[0];
  if (known && random.chance(0.5)) entries.push(known);
  else entries.push({ key: oddName(keys, random), value });
}
