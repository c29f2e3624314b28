/**
 * Types and shapes of every value of a graph, as ONNX Runtime infers them: it knows all operators
 * already. The graph is opened with every value as an output and large weights as inputs, so that no
 * weight is read.
 */

import { GraphBuilder, type ValueSpec } from '../graph/builder.js';
import type { ValueType } from '../graph/value-type.js';
import { collect } from '../onnx/edit.js';
import { elementCount } from '../onnx/model.js';
import { openSession, type Session } from './session.js';
import type { SizeProbe } from './size-probe.js';

// Shapes, axes and the like are small and must be known; nothing this large is one of them.
const LARGE_ELEMENTS = 1024;

/**
 * The types of all values of `graph`. Dimensions that depend on inputs are symbols or null.
 * @param probe numbers for symbols of the inputs, which settle sizes that the graph computes
 * @throws OnnxLoraError `runtime` where ONNX Runtime does not take the graph
 */
export async function inferTypes(
  graph: GraphBuilder,
  probe?: SizeProbe,
): Promise<Map<string, ValueType>> {
  if (!probe?.settles(graph.inputs)) return withoutFalseScalars(graph, await asDeclared(graph));
  const sizedGraph = sized(graph, probe, 0);
  const declared = await asDeclared(sizedGraph).catch((error) => {
    if (!probe.takeOwnSizes()) throw error;
  });
  if (!declared) return inferTypes(graph, probe);
  const first = await withoutFalseScalars(sizedGraph, declared);
  const second = await asDeclared(sized(graph, probe, 1)).catch(async (error) => {
    // The first sizes went through, so these do not fit one another, or the model has no others.
    if (!probe.changeTogether() && !probe.pin(await fixedSymbols(graph, probe))) throw error;
  });
  if (!second) return inferTypes(graph, probe);
  return new Map([...first].map(([name, type]) => [name, probe.merge(type, second.get(name))]));
}

/** The symbols that the model takes one size of: those that alone may not change, or else all. */
async function fixedSymbols(graph: GraphBuilder, probe: SizeProbe): Promise<string[]> {
  const groups = probe.changing(graph.inputs);
  const fixed: string[] = [];
  for (const symbols of groups) {
    await asDeclared(sized(graph, probe, 1, symbols)).catch(() => fixed.push(...symbols));
  }
  return fixed.length > 0 ? fixed : groups.flat();
}

function sized(
  graph: GraphBuilder,
  probe: SizeProbe,
  which: 0 | 1,
  alone?: readonly string[],
): GraphBuilder {
  const copy = new GraphBuilder(graph.opsets, graph.irVersion);
  for (const node of graph.nodes) copy.add(node);
  for (const tensor of graph.initializers.values()) copy.addInitializer(tensor);
  for (const input of graph.inputs) {
    copy.inputs.push({ ...input, shape: probe.shapeAt(input.shape, which, alone) });
  }
  return copy;
}

/** Types as the runtime gives them: an empty shape is a scalar or an unknown rank. */
async function asDeclared(graph: GraphBuilder): Promise<Map<string, ValueType>> {
  const types = new Map<string, ValueType>();
  for (const { name, dtype, dims } of graph.initializers.values())
    types.set(name, { dtype, shape: dims });
  for (const { name, dtype, shape } of graph.inputs) if (dtype) types.set(name, { dtype, shape });
  const names = graph.nodes.flatMap((node) => node.outputs).filter((name) => name !== '');
  const session = await openProbe(graph, names);
  try {
    for (const { name, dtype, shape } of session.outputs)
      if (dtype) types.set(name, { dtype, shape });
  } finally {
    await session.release();
  }
  return types;
}

/** Empty shapes left where they are those of scalars. */
async function withoutFalseScalars(graph: GraphBuilder, types: Map<string, ValueType>) {
  const computed = graph.nodes.flatMap((node) => node.outputs).filter((name) => name !== '');
  const open = computed.filter((name) => types.get(name)?.shape?.length === 0);
  for (const name of await unknownRanks(graph, open)) {
    types.set(name, { dtype: types.get(name)!.dtype, shape: null });
  }
  return types;
}

/** Those of `names` whose Shape is not known to be empty. */
async function unknownRanks(graph: GraphBuilder, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  const probe = copyForInference(graph);
  const shapes = new Map(names.map((name) => [probe.op('Shape', [name]), name]));
  const session = await openProbeModel(probe, [...shapes.keys()]);
  try {
    const unknown = session.outputs.filter(({ shape }) => shape.length !== 1 || shape[0] !== 0);
    return unknown.map(({ name }) => shapes.get(name)!);
  } finally {
    await session.release();
  }
}

function openProbe(graph: GraphBuilder, outputs: readonly string[]): Promise<Session> {
  return openProbeModel(copyForInference(graph), outputs);
}

async function openProbeModel(graph: GraphBuilder, outputs: readonly string[]): Promise<Session> {
  for (const name of outputs) graph.outputs.push(untyped(name));
  // Folding constants settles shapes that the graph computes; nothing else changes, as every value is
  // an output.
  return openSession(await collect(graph.modelPieces()), { optimization: 'basic' });
}

function untyped(name: string): ValueSpec {
  return { name, dtype: undefined, shape: null };
}

function copyForInference(graph: GraphBuilder): GraphBuilder {
  const copy = new GraphBuilder(graph.opsets, graph.irVersion);
  for (const node of graph.nodes) copy.add(node);
  for (const input of graph.inputs) {
    copy.reserve(input.name);
    copy.inputs.push(input);
  }
  for (const tensor of graph.initializers.values()) {
    if (elementCount(tensor.dims) < LARGE_ELEMENTS) copy.addInitializer(tensor);
    else copy.inputs.push({ name: tensor.name, dtype: tensor.dtype, shape: tensor.dims });
  }
  return copy;
}
