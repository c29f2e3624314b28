/** A patched model as a graph that computes a loss from a flat vector of adapter numbers. */
import type { ValueType } from '../autodiff/value.js';
import { OnnxLoraError } from '../errors.js';
import type { GraphBuilder, ValueSpec } from '../graph/builder.js';
import { loadGraph } from '../graph/load.js';
import type { ModelManifest, PatchedAdapter } from '../lora/manifest.js';
import type { PatchedModel } from '../lora/patched.js';
import { dtypeOf, type TensorReader } from '../onnx/tensor.js';
import { inferTypes } from '../runtime/infer-types.js';
import { addLoss, type LossName, type LossOptions } from './losses/index.js';
import { layOut, type Parameter, readFromVector, sizeOf } from './parameters.js';

export interface ForwardOptions {
  /** The adapter set to train; may be left out where the model has one. */
  readonly name?: string | undefined;
  readonly loss: LossName;
  readonly lossOptions?: LossOptions | undefined;
  /** The output that the loss looks at; may be left out where the model has one. */
  readonly modelOutput?: string | undefined;
}

export interface ForwardGraph {
  readonly graph: GraphBuilder;
  readonly set: ModelManifest;
  readonly parameters: readonly Parameter[];
  /** What a user feeds: the model's inputs and the loss's. */
  readonly data: readonly ValueSpec[];
  /** The output that the loss looks at. */
  readonly output: { readonly name: string } & ValueType;
  readonly loss: string;
  /** The gradient of the loss with respect to a value, where the loss brings it. */
  readonly seed?: { readonly value: string; readonly gradient: string } | undefined;
}

/**
 * The forward pass with the loss behind it. Its trainable tensors are read from the input `theta`.
 * @throws OnnxLoraError `no-adapter`, `invalid-argument` where the output or the loss does not fit,
 * `unsupported` for a model that has no place in a builder
 */
export async function buildForward(
  patched: PatchedModel,
  reader: TensorReader,
  options: ForwardOptions,
): Promise<ForwardGraph> {
  const graph = loadGraph(patched.model, reader);
  const set = theSet(patched, options.name);
  const parameters = layOut(set.adapters.flatMap((adapter) => tensorsOf(patched, adapter)));
  checkFree(patched, graph);
  graph.reserve('theta');
  graph.inputs.push({ name: 'theta', dtype: 'float32', shape: [sizeOf(parameters)] });
  readFromVector(graph, 'theta', parameters);
  const output = await outputOf(patched, graph, options.modelOutput);
  const { loss, inputs, gradient } = addLoss(graph, options.loss, output, options.lossOptions);
  const model = patched.model.graph.inputs.map(({ name }) => name);
  const modelInputs = graph.inputs.filter(({ name }) => model.includes(name));
  return {
    graph,
    set,
    parameters,
    output,
    loss,
    data: [...modelInputs, ...inputs],
    seed: gradient && { value: gradient.of, gradient: gradient.value },
  };
}

function theSet(patched: PatchedModel, name: string | undefined): ModelManifest {
  const sets = patched.chosenSets(name);
  if (sets.length === 1) return sets[0]!;
  throw new OnnxLoraError(
    'invalid-argument',
    `${patched.model.source.label} has ${sets.length} adapter sets (${sets.map(({ set }) => set).join(', ')}), expected one to train`,
    { hint: 'Choose one with --name.' },
  );
}

function tensorsOf(patched: PatchedModel, { a, b, generalA, generalB }: PatchedAdapter) {
  const names = [a, b, generalA, generalB].filter((name) => name !== undefined);
  return names.map((name) => {
    const tensor = patched.initializer(name);
    return { name, shape: tensor.dims, dtype: dtypeOf(tensor, patched.model) };
  });
}

// Inputs of the step graph; a model that uses one of the names could not be fed any more.
const RESERVED = ['theta', 'm', 'v', 'lr', 'correction1', 'correction2', 'accumulated', 'apply'];

function checkFree(patched: PatchedModel, graph: GraphBuilder): void {
  const values = [...graph.inputs.map(({ name }) => name), ...graph.initializers.keys()];
  const all = new Set([...values, ...graph.nodes.flatMap(({ outputs }) => outputs)]);
  const taken = RESERVED.find((name) => all.has(name));
  if (taken === undefined) return;
  throw new OnnxLoraError(
    'unsupported',
    `${patched.model.source.label} has a value called ${taken}, which is the name of an input of the training step`,
    { hint: 'Rename the value in the model, e.g. with onnx.compose or when exporting.' },
  );
}

async function outputOf(
  patched: PatchedModel,
  graph: GraphBuilder,
  wanted: string | undefined,
): Promise<{ name: string } & ValueType> {
  const names = graph.outputs.map(({ name }) => name);
  const name = wanted ?? names[0]!;
  const listed = names.join(', ');
  if (wanted === undefined && names.length !== 1) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${patched.model.source.label} has ${names.length} outputs (${listed}), expected one to compute the loss from`,
      { hint: 'Choose one with --model-output.' },
    );
  }
  if (!names.includes(name)) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${patched.model.source.label} has no output ${name}, it has: ${listed}`,
      { hint: 'Choose one of them with --model-output.' },
    );
  }
  const type = (await inferTypes(graph)).get(name);
  if (type) return { name, ...type };
  throw new OnnxLoraError('unsupported', `${name} is no tensor, expected one for the loss`);
}
