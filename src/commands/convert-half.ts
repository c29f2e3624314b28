/** A model with its matrices in float16, and the proof that it computes with the nearest numbers. */
import { basename } from 'node:path';
import { type HalfWeight, halfWeights, numbersOf, toHalf } from '../adapters/fold/to-half.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import { ValueIndex } from '../graph/uses.js';
import { frobenius } from '../linalg/products.js';
import { NewDataFile } from '../onnx/data-file.js';
import { findDataType, fromFloat32, toFloat32 } from '../onnx/dtype.js';
import { type Computed, MessageEdit } from '../onnx/edit.js';
import { elementCount, type Node, nodeLabel } from '../onnx/model.js';
import { setTensorData } from '../onnx/rewrite.js';
import type { WorkOptions, WriteOptions } from '../onnx/write.js';
import type { Verification } from '../runtime/verification.js';
import { checkConverted, type QuantizedWeight, type ReadWeight } from './converted.js';
import type { VerifyOptions } from './options/check.js';
import { writeWithData } from './output.js';

/**
 * Writes the model at `path` with its matrices of float32 in float16, and a Cast to float32 behind each.
 * @returns the number of nodes that read them
 */
export async function writeInHalf(
  path: string,
  output: string,
  options: WriteOptions,
): Promise<number> {
  return await withModel(path, async ({ model, files, reader }) => {
    const root = new MessageEdit(model.source, model.range);
    const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
    const values = new ValueIndex(model);
    const weights = halfWeights(model, values, reader);
    toHalf({ model, values, reader, root, dataFile }, weights);
    await writeWithData(model, root, output, options, dataFile, 'forget');
    return new Set<Node>(weights.flatMap(({ nodes }) => nodes)).size;
  });
}

/**
 * Reads the float16 of `output` back and holds it against the floats of `path`; then runs `output` beside
 * the model that has what was read as float32.
 */
export async function checkHalf(
  path: string,
  output: string,
  options: VerifyOptions & WorkOptions,
): Promise<{ readonly weights: readonly QuantizedWeight[]; readonly verification: Verification }> {
  const words = { became: 'float16', unit: 'roundings' };
  return await checkConverted({ path, output, words, writeReference }, options);
}

/** The model of float32 with the numbers that another one has in float16. */
async function writeReference(
  { model, files, reader }: OpenedModel,
  written: OpenedModel,
  output: string,
): Promise<readonly ReadWeight[]> {
  const read: ReadWeight[] = [];
  const root = new MessageEdit(model.source, model.range);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  for (const weight of halfWeights(model, new ValueIndex(model), reader)) {
    const { place } = weight;
    const count = elementCount(place.tensor.dims);
    const data: Computed = {
      length: 4 * count,
      *chunks() {
        const found = halvesOf(written, weight);
        read.push(comparedWith(numbersOf(reader, place.tensor), found, weight));
        yield fromFloat32('float32', found);
      },
    };
    if (place.tensor.data.kind === 'external') dataFile.replace(place, data);
    else setTensorData(root, place, data);
  }
  await writeWithData(model, root, output, {}, dataFile, 'forget');
  return read;
}

/** The numbers in the file; NaN where it has no such tensor, which is as far off as can be. */
function halvesOf({ model, reader }: OpenedModel, { half, place }: HalfWeight): Float32Array {
  const tensor = model.graph.initializers.get(half);
  const count = elementCount(place.tensor.dims);
  const isThere = tensor && findDataType(tensor.dataType) === 'float16';
  return isThere
    ? toFloat32('float16', reader.bytes(tensor), count)
    : new Float32Array(count).fill(Number.NaN);
}

function comparedWith(
  wanted: Float32Array,
  found: Float32Array,
  { name, nodes }: HalfWeight,
): ReadWeight {
  return {
    node: nodeLabel(nodes[0]!),
    weight: name,
    error: frobenius(Float64Array.from(found, (value, i) => value - wanted[i]!)),
    norm: frobenius(Float64Array.from(wanted)),
    steps: mostRoundings(wanted, found),
  };
}

/** The greatest difference, over half the distance of float16's numbers there: at most 1 by one rounding. */
function mostRoundings(wanted: Float32Array, found: Float32Array): number {
  let most = 0;
  for (const [i, value] of wanted.entries()) {
    if (Number.isNaN(value)) continue;
    const off = Math.abs(found[i]! - value);
    if (off === 0) continue;
    const share = off / halfSpacing(value);
    if (!(share <= most)) most = share;
  }
  return most;
}

/** Subnormal numbers are 2^-24 apart. */
function halfSpacing(value: number): number {
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(value))));
  return 2 ** (exponent - 11);
}
