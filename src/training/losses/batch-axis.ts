/** Outputs whose first axis is not the one of samples. */

import type { LabelKind } from '../../data/label-kind.js';
import type { ModelOutput } from '../../data/needs.js';
import { OnnxLoraError } from '../../errors.js';
import { ancestorsOf } from '../../graph/ancestors.js';
import type { GraphBuilder, ValueSpec } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import type { NewNode } from '../../onnx/encode.js';
import type { Dim } from '../../onnx/model.js';
import { withLostBatch } from './lost-batch.js';
import { unsqueeze } from './operators.js';

/**
 * The output with samples along its first axis: [frames, batch, classes] that spell a text are transposed, and a model
 * that leaves the axis out for batches of 1, or makes one axis of it and the next, gets it back.
 * @param inputs of the model, samples first
 * @param types of the graph's values, as far as they are known
 * @throws OnnxLoraError `invalid-argument` for an output that does not follow the batch, or may do so in two ways
 */
export function batchFirst(
  graph: GraphBuilder,
  output: ModelOutput,
  inputs: readonly ValueSpec[],
  labels: LabelKind,
  types: ValueTypes = new Map(),
): ModelOutput {
  const batch = batchOf(inputs);
  const { shape } = output;
  if (labels === 'spelling') checkOrder(graph, output, batch);
  if (batch === undefined || labels === 'pairs' || !shape || shape[0] === batch) return output;
  const found = batch !== null && withLostBatch(graph, output, types, batch);
  if (found) return found;
  const [frames, samples, classes] = shape;
  if (labels === 'spelling' && shape.length === 3 && samples === batch) {
    const name = graph.op('Transpose', [output.name], { perm: { ints: [1, 0, 2] } });
    return { ...output, name, shape: [samples, frames!, classes!] };
  }
  if (batch === 1 && hasFixedFirst(shape)) {
    return { ...output, name: unsqueeze(graph, output.name, 0), shape: [1, ...shape] };
  }
  if (typeof batch === 'string' && hasFixedFirst(shape) && isSure(shape, batch)) {
    throw withoutBatch(output, shape, batch);
  }
  return output;
}

/**
 * If a fixed batch has as many samples as there are frames, shapes do not tell samples from frames. Samples that
 * are first in the inputs are so in the output, unless a Transpose on the way moves the first axis.
 * @throws OnnxLoraError `invalid-argument`
 */
function checkOrder(
  graph: GraphBuilder,
  { name, shape }: ModelOutput,
  batch: Dim | undefined,
): void {
  const [frames, samples] = shape ?? [];
  if (typeof batch !== 'number' || batch === 1 || frames !== batch || samples !== batch) return;
  const reaches = ancestorsOf(graph, name);
  const turned = graph.nodes.find(
    (node) => node.outputs.some((one) => reaches.has(one)) && movesFirst(node),
  );
  if (!turned) return;
  throw new OnnxLoraError(
    'invalid-argument',
    `the output ${name} is [${shape!.join(', ')}] for batches of ${batch}, and ${turned.name || turned.outputs[0]} (Transpose) moves the first axis: samples and frames cannot be told from each other`,
    {
      node: turned.name || undefined,
      hint: 'Export the model with an open batch, or for another number of samples than it has frames.',
    },
  );
}

function movesFirst({ opType, attributes }: NewNode): boolean {
  const perm = attributes?.perm;
  if (opType !== 'Transpose' || !perm || !('ints' in perm)) return false;
  // Matrices are weights.
  return perm.ints.length > 2 && Number(perm.ints[0]) !== 0;
}

/** The first axis that all inputs have in common. */
function batchOf(inputs: readonly ValueSpec[]): Dim | undefined {
  const [first, ...others] = inputs.map(({ shape }) => shape?.[0]);
  const isCommon = first !== null && others.every((dim) => dim === first);
  return isCommon ? first : undefined;
}

/** Whether the first axis is surely not one of samples: a number, or none. An open one may be. */
function hasFixedFirst(shape: readonly Dim[]): boolean {
  return shape.length === 0 || typeof shape[0] === 'number';
}

/** Whether samples have no axis of their own, or a later one; another open axis may hold them too. */
function isSure(shape: readonly Dim[], batch: string): boolean {
  return shape.includes(batch) || shape.every((dim) => typeof dim === 'number');
}

function withoutBatch({ name }: ModelOutput, shape: readonly Dim[], batch: string) {
  const found = `[${shape.map((dim) => dim ?? '?').join(', ')}]`;
  return new OnnxLoraError(
    'invalid-argument',
    `the output ${name} is ${found}, whose first axis does not follow the axis ${batch} of the inputs: expected an output for each sample`,
    {
      hint: 'Export the model without what takes the mean over the batch, or squeezes it away; or choose another output with `modelOutput`.',
    },
  );
}
