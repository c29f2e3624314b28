/**
 * int64 inputs as int32: GPU providers have hardly any kernels for int64, so that a single Cast of a
 * mask would send the data back to the CPU. What follows from an input by moving numbers about,
 * comparing or counting them becomes int32 too.
 */
import { dataTypeNumber, toIntegers } from '../onnx/dtype.js';
import type { NewNode, NewTensor } from '../onnx/encode.js';
import { elementCount } from '../onnx/model.js';
import { onnx } from '../onnx/proto.js';
import type { GraphBuilder } from './builder.js';
import { capturedBy } from './prune.js';

/**
 * Makes the graph take its int64 inputs as int32. Values keep their names; where an operator takes
 * nothing but int64, a Cast comes before it.
 * @returns the inputs that have to be fed as int32
 */
export function narrowInputs(graph: GraphBuilder): ReadonlySet<string> {
  const kept = keptValues(graph);
  const inputs = graph.inputs.flatMap(({ name, dtype }) =>
    dtype === 'int64' && !kept.has(name) ? [name] : [],
  );
  const narrowing = new Narrowing(graph, inputs, kept);
  const nodes = graph.nodes.splice(0);
  for (const node of nodes) narrowing.add(node);
  for (const [i, input] of graph.inputs.entries()) {
    if (inputs.includes(input.name)) graph.inputs[i] = { ...input, dtype: 'int32' };
  }
  return new Set(inputs);
}

/** The outputs, and what the bodies of Loop, Scan and If read from around them: their types stay. */
function keptValues({ nodes, outputs }: GraphBuilder): Set<string> {
  return new Set([...outputs.map(({ name }) => name), ...nodes.flatMap(capturedBy)]);
}

/** The inputs and outputs of an operator that may be int32 in the place of int64. */
interface Form {
  /** Inputs of one type; `all` where it is every one. */
  readonly together: readonly number[] | 'all';
  /** Whether the outputs have that type too. */
  readonly passedOn: boolean;
}

const data: Form = { together: [0], passedOn: true };
const source: Form = { together: [0], passedOn: false };
const indices: Form = { together: [1], passedOn: false };
const everything: Form = { together: 'all', passedOn: true };
const compared: Form = { together: 'all', passedOn: false };

/** Several forms of an operator are of inputs that have nothing to do with each other. */
const forms: Readonly<Record<string, readonly Form[]>> = {
  Add: [everything],
  Cast: [source],
  Concat: [everything],
  CumSum: [data],
  Equal: [compared],
  Expand: [data],
  Flatten: [data],
  Gather: [data, indices],
  GatherElements: [data, indices],
  GatherND: [data],
  Greater: [compared],
  GreaterOrEqual: [compared],
  Identity: [data],
  Less: [compared],
  LessOrEqual: [compared],
  Max: [everything],
  Min: [everything],
  Pad: [{ together: [0, 2], passedOn: true }],
  ReduceMax: [data],
  ReduceMin: [data],
  ReduceSum: [data],
  Reshape: [data],
  ScatterElements: [indices],
  Shape: [source],
  Size: [source],
  Slice: [data],
  Split: [data],
  Squeeze: [data],
  Sub: [everything],
  Tile: [data],
  Transpose: [data],
  Unsqueeze: [data],
  Where: [{ together: [1, 2], passedOn: true }],
};

class Narrowing {
  private readonly narrow: Set<string>;
  /** Constants that int32 does not hold ("to the end"), and what may be made of them. */
  private readonly wide = new Set<string>();
  private readonly casts = new Map<string, string>();

  constructor(
    private readonly graph: GraphBuilder,
    inputs: readonly string[],
    private readonly kept: ReadonlySet<string>,
  ) {
    this.narrow = new Set(inputs);
    for (const [name, tensor] of graph.initializers) if (!fits(tensor)) this.wide.add(name);
  }

  /** Adds the node in the type that its inputs have by now. */
  add(node: NewNode): void {
    const active = this.formsIn(node);
    const inputs = node.inputs.map((name, i) => {
      const taken = active.some((form) => isIn(form, i));
      return name === '' || taken === this.narrow.has(name) ? name : this.cast(name, taken);
    });
    this.graph.add({ ...node, inputs });
    if (makesWide(node) || carriedInputs(node).some((name) => this.wide.has(name))) {
      for (const name of node.outputs) this.wide.add(name);
    }
    if (!active.some(({ passedOn }) => passedOn)) return;
    for (const name of node.outputs) this.narrow.add(name);
  }

  /** Those of the node's forms whose inputs become int32. */
  private formsIn({ opType, domain = '', inputs, outputs }: NewNode): Form[] {
    const all = domain === '' && Object.hasOwn(forms, opType) ? forms[opType]! : [];
    return all.filter((form) => {
      const together = inputs.filter((name, i) => name !== '' && isIn(form, i));
      if (!together.some((name) => this.narrow.has(name))) return false;
      if (form.passedOn && outputs.some((name) => this.kept.has(name))) return false;
      return together.every((name) => !this.wide.has(name));
    });
  }

  private cast(name: string, toNarrow: boolean): string {
    const dtype = toNarrow ? 'int32' : 'int64';
    const to = { int: dataTypeNumber(dtype) };
    const known = this.casts.get(name);
    const result = known ?? this.graph.op('Cast', [name], { to }, `${name}/${dtype}`);
    this.casts.set(name, result);
    return result;
  }
}

function isIn({ together }: Form, index: number): boolean {
  return together === 'all' || together.includes(index);
}

/** The inputs whose numbers may be among those of the outputs. */
function carriedInputs({ opType, domain = '', inputs, attributes }: NewNode): readonly string[] {
  const known = domain === '' && Object.hasOwn(forms, opType) ? forms[opType] : undefined;
  const to = attributes?.to;
  const isWidening = opType === 'Cast' && to && 'int' in to && to.int === dataTypeNumber('int64');
  if (!known || isWidening) return inputs;
  const carrying = known.filter(({ passedOn }) => passedOn);
  return inputs.filter((_, i) => carrying.some((form) => isIn(form, i)));
}

/** Whether a node makes constants of its own that int32 does not hold. */
function makesWide({ opType, domain = '', attributes }: NewNode): boolean {
  const value = attributes?.value;
  if (opType !== 'ConstantOfShape' || domain !== '' || !value || !('raw' in value)) return false;
  const { t } = onnx.AttributeProto.decode(value.raw);
  if (t?.dataType !== dataTypeNumber('int64')) return false;
  const numbers = t.rawData?.length
    ? [...toIntegers('int64', t.rawData, t.rawData.length / 8)]
    : (t.int64Data ?? []).map(Number);
  return !numbers.every(isInt32);
}

/** Whether a constant is one of int32 numbers. */
function fits(tensor: NewTensor): boolean {
  if (tensor.dtype !== 'int64' || 'chunks' in tensor.data) return true;
  const { data: bytes, dims } = tensor;
  const raw = bytes instanceof Uint8Array ? bytes : bytes.source.read(bytes.start, bytes.end);
  return toIntegers('int64', raw, elementCount(dims)).every((value) => isInt32(value));
}

function isInt32(value: number | bigint): boolean {
  return value >= -(2 ** 31) && value < 2 ** 31;
}
