/** The tensors of an adapter set that train, as parts of one flat vector. */
import { biasesOf } from '../adapters/edit/bias.js';
import { tensorsOf } from '../adapters/kinds/tensors.js';
import type { ModelManifest, PatchedAdapter } from '../adapters/model/manifest.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { OnnxLoraError } from '../errors.js';
import { ancestorsOf } from '../graph/ancestors.js';
import type { GraphBuilder } from '../graph/builder.js';
import { wideType } from '../graph/widen.js';
import { dtypeOf } from '../onnx/tensor.js';
import { layOut, type Parameter, sizeOf } from './parameters.js';

/** Tensors that train, and what of a set does not. */
export interface Trainable {
  /** The places of its tensors in the flat vector. */
  readonly parameters: readonly Parameter[];
  /** The elements of the flat vector that train: those of parameters after them do not reach the output. */
  readonly trained: number;
  /** Adapted nodes, and a head, that do not reach the output: their numbers stay as they are. */
  readonly withoutGradient: readonly string[];
  /** Those of the parameters that are the model's own biases. */
  readonly biases: readonly string[];
  /** The adapted nodes that have none, where biases train. */
  readonly withoutBias: readonly string[];
}

/**
 * The set of a name, or the only one.
 * @throws OnnxLoraError `no-adapter`, `invalid-argument`
 */
export function theSet(patched: PatchedModel, name: string | undefined): ModelManifest {
  const sets = patched.chosenSets(name);
  if (sets.length === 1) return sets[0]!;
  throw new OnnxLoraError(
    'invalid-argument',
    `${patched.model.source.label} has ${sets.length} adapter sets (${sets.map(({ set }) => set).join(', ')}), expected one to train`,
    { hint: 'Choose one with `name`.' },
  );
}

/**
 * The tensors that train, in the order of the backward pass: runtimes that follow the outputs' order compute
 * the gradients of the last layers first, and free what they were computed from.
 * @throws OnnxLoraError `invalid-argument` where none of them reaches the output
 */
export function trainableOf(
  patched: PatchedModel,
  graph: GraphBuilder,
  set: ModelManifest,
  output: string,
  trainBias = false,
): Trainable {
  const { biases, without } = trainBias ? biasesOf(patched, set) : { biases: [], without: [] };
  const namesOfBiases = biases.map(({ name }) => name);
  const names = [
    ...(set.head ? [set.head.weight, set.head.bias] : []),
    ...[...set.adapters].reverse().flatMap(tensorNames),
    ...namesOfBiases,
  ];
  const reaches = ancestorsOf(graph, output);
  const [reached, others] = parted(names, (name) => reaches.has(name));
  if (reached.length === 0) throw nothingReaches(patched, graph, set, output);
  const parameters = layOut([...reached, ...others].map((name) => tensorOf(patched, name)));
  return {
    parameters,
    trained: sizeOf(parameters.slice(0, reached.length)),
    withoutGradient: [...unreachedParts(set, reaches)],
    biases: namesOfBiases,
    withoutBias: without,
  };
}

function tensorNames(adapter: PatchedAdapter): string[] {
  return tensorsOf(adapter).map(({ key }) => adapter[key]!);
}

function tensorOf(patched: PatchedModel, name: string) {
  const tensor = patched.constant(name);
  return { name, shape: tensor.dims, dtype: wideType(dtypeOf(tensor, patched.model)) };
}

function parted<T>(items: readonly T[], belongs: (item: T) => boolean): [T[], T[]] {
  return [items.filter(belongs), items.filter((item) => !belongs(item))];
}

/** The adapted nodes, and the head, whose numbers no value of these depends on. */
function* unreachedParts(
  { adapters, head }: ModelManifest,
  reaches: ReadonlySet<string>,
): Generator<string> {
  for (const { a, sites } of adapters) {
    if (!reaches.has(a)) for (const { node } of sites) yield node;
  }
  if (head && !reaches.has(head.weight)) yield head.nodes.at(-1)!;
}

function nothingReaches(
  { model }: PatchedModel,
  { outputs }: GraphBuilder,
  { set, adapters }: ModelManifest,
  output: string,
): OnnxLoraError {
  const others = outputs.map(({ name }) => name).filter((name) => name !== output);
  const choice =
    others.length > 0
      ? `Choose another one with \`modelOutput\` (${others.join(', ')}), or patch`
      : 'Patch';
  return new OnnxLoraError(
    'invalid-argument',
    `${model.source.label}: no adapter of ${set} reaches the output ${output}, expected one that the loss can train`,
    { node: adapters[0]?.sites[0]?.node, hint: `${choice} layers that lie before ${output}.` },
  );
}
