/** Pairs of files that show whether they belong together, and what a run of training needs. */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { safetensorsPieces } from '../../src/formats/safetensors-output.js';
import { collect } from '../../src/onnx/edit.js';
import { externalLocations } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { model, node, tensor, value } from '../../test/support/models.js';

/** Enough for a kill to fall between two writes. */
const ROWS = 1024;
const COLUMNS = 2048;

/** A model whose name is its mark, and whose data file holds nothing else. */
export function markedModel(path: string, mark: number): void {
  const { rawData: _, ...shell } = tensor('w', [ROWS, COLUMNS], new Float64Array(ROWS * COLUMNS));
  const entries = Object.entries({
    location: 'w.data',
    offset: '0',
    length: `${4 * ROWS * COLUMNS}`,
  });
  const externalData = entries.map(([key, text]) => ({ key, value: text }));
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], `y${mark}`, {}, 'layer')],
    initializers: [{ ...shell, dataLocation: 1, externalData }],
    inputs: [value('x', ['n', ROWS])],
    outputs: [value(`y${mark}`, ['n', COLUMNS])],
  });
  writeFileSync(path, bytes);
  const data = new Float32Array(ROWS * COLUMNS).fill(mark);
  writeFileSync(join(dirname(path), 'w.data'), new Uint8Array(data.buffer));
}

/** The mark of a model that is whole, with its data; undefined for one that is torn. */
export function markOf(path: string): number | undefined {
  const opened = openModel(path);
  try {
    const mark = Number(opened.graph.outputs[0]!.name.slice(1));
    const [location] = externalLocations(opened);
    const bytes = readFileSync(join(dirname(path), location!));
    const data = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const isWhole = data.length === ROWS * COLUMNS && data.every((number) => number === mark);
    return isWhole ? mark : undefined;
  } catch {
    return undefined;
  } finally {
    opened.close();
  }
}

/** A model of two layers, and samples of sines. */
export async function trainingFiles(modelPath: string, dataPath: string): Promise<void> {
  const bytes = model({
    nodes: [
      node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
      node('Tanh', ['h'], 't'),
      node('MatMul', ['t', 'w2'], 'y', {}, 'second'),
    ],
    initializers: [tensor('w1', [6, 8]), tensor('w2', [8, 4])],
    inputs: [value('x', ['n', 6])],
    outputs: [value('y', ['n', 4])],
  });
  writeFileSync(modelPath, bytes);
  const numbers = (name: string, columns: number) => {
    const data = Float32Array.from({ length: 24 * columns }, (_, i) => Math.sin(i + columns));
    const shape = [24, columns];
    return { name, dtype: 'float32', shape, data: new Uint8Array(data.buffer) } as const;
  };
  const pieces = safetensorsPieces([numbers('x', 6), numbers('target', 4)], {});
  writeFileSync(dataPath, await collect(pieces));
}
