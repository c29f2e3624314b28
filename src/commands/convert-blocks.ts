/** A model with its products in blocks of integers, and the proof that it computes with the same weights. */
import { basename } from 'node:path';
import { type BlockFormat, greatestStep } from '../adapters/fold/block-codes.js';
import { weightByIdentity } from '../adapters/fold/dequantize.js';
import { blockLayers, matrixOf, toBlocks } from '../adapters/fold/to-blocks.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import { findLinearLayers, type LinearLayer } from '../adapters/targets/index.js';
import { NameAuthority } from '../graph/names.js';
import { ValueIndex } from '../graph/uses.js';
import { frobenius } from '../linalg/products.js';
import { NewDataFile } from '../onnx/data-file.js';
import { byteLength, toFloat64 } from '../onnx/dtype.js';
import { type Computed, MessageEdit } from '../onnx/edit.js';
import { nodeLabel } from '../onnx/model.js';
import { addInitializer, graphEdit } from '../onnx/rewrite.js';
import { encodeString } from '../onnx/wire.js';
import type { WorkOptions, WriteOptions } from '../onnx/write.js';
import type { Verification } from '../runtime/verification.js';
import {
  type Converted,
  checkConverted,
  type QuantizedWeight,
  type ReadWeight,
} from './converted.js';
import type { VerifyOptions } from './options/check.js';
import { writeWithData } from './output.js';

/**
 * Writes the model at `path` with MatMulNBits in the place of every MatMul by a stored matrix.
 * @returns the nodes that became such
 */
export async function writeInBlocks(
  path: string,
  output: string,
  format: BlockFormat,
  options: WriteOptions,
): Promise<readonly string[]> {
  return await withModel(path, async ({ model, files, reader }) => {
    const root = new MessageEdit(model.source, model.range);
    const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
    const edited = { model, values: new ValueIndex(model), reader, root, dataFile };
    const layers = toBlocks(edited, format);
    await writeWithData(model, root, output, options, dataFile, 'forget');
    return layers.map(({ node }) => nodeLabel(node));
  });
}

/**
 * Reads the integers of `output` back and holds them against the floats of `path`; then runs `output` beside
 * the model that multiplies with what was read, in floats.
 */
export async function checkBlocks(
  path: string,
  output: string,
  format: BlockFormat,
  options: VerifyOptions & WorkOptions,
): Promise<{ readonly weights: readonly QuantizedWeight[]; readonly verification: Verification }> {
  const words = { became: 'integers', unit: 'steps' };
  const writer: Converted['writeReference'] = (floats, written, reference) =>
    writeReference(floats, written, reference, format);
  return await checkConverted({ path, output, words, writeReference: writer }, options);
}

/** The model of floats with the numbers that another one has in integers. */
async function writeReference(
  { model, files, reader }: OpenedModel,
  quantized: OpenedModel,
  output: string,
  format: BlockFormat,
): Promise<readonly ReadWeight[]> {
  const read: ReadWeight[] = [];
  const values = new ValueIndex(quantized.model);
  const byOutput = new Map(
    findLinearLayers(quantized.model, values).flatMap((one): [string, LinearLayer][] =>
      'refusal' in one ? [] : [[one.output, one]],
    ),
  );
  const context = { model: quantized.model, values, reader: quantized.reader };
  const root = new MessageEdit(model.source, model.range);
  const dataFile = new NewDataFile(model, files, `${basename(output)}.data`);
  const names = new NameAuthority(model);
  for (const layer of blockLayers(model, new ValueIndex(model))) {
    const { node, weight } = layer;
    const written = byOutput.get(layer.output);
    if (written?.node.opType !== 'MatMulNBits') continue;
    const dims = [weight.in, weight.out];
    const data: Computed = {
      length: byteLength(weight.dtype, weight.in * weight.out),
      async *chunks() {
        const bytes = (await weightByIdentity(context, written).readRows(0, weight.in)).slice();
        const matrix = matrixOf(reader, layer);
        const found = toFloat64(weight.dtype, bytes, matrix.values.length);
        read.push({
          node: nodeLabel(node),
          weight: weight.name,
          error: frobenius(found.map((value, i) => value - matrix.values[i]!)),
          norm: frobenius(matrix.values),
          steps: greatestStep(matrix, found, format),
        });
        yield bytes;
      },
    };
    const tensor = { name: names.fresh(`${weight.name}_read`), dtype: weight.dtype, dims, data };
    if (weight.constant!.tensor.data.kind === 'external') dataFile.add(tensor);
    else addInitializer(root, model, tensor);
    const edit = graphEdit(root, node.graph).child(node.field);
    edit.setPayload(node.inputFields[weight.input]!, encodeString(tensor.name));
  }
  await writeWithData(model, root, output, {}, dataFile, 'forget');
  return read;
}
