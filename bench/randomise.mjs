/**
 * Random numbers for the factors of a patched model, in place: B starts at zero, and an adapter of
 * zeros would be no test of a merge.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { PatchedModel } from '../dist/src/lora/patched.js';
import { dataTypeName, fromFloat64 } from '../dist/src/onnx/dtype.js';
import { openModel } from '../dist/src/onnx/parse.js';
import { randomValues, uniform } from './models.mjs';

/** @param {string} path a model that bench code has just patched */
export function randomiseAdapters(path) {
  const model = openModel(path);
  const random = uniform(13);
  const file = openSync(path, 'r+');
  try {
    const patched = new PatchedModel(model);
    for (const adapter of patched.sets.flatMap(({ adapters }) => adapters)) {
      for (const name of [adapter.a, adapter.b]) {
        const { dims, dataType, data } = patched.initializer(name);
        const count = dims.reduce((product, dim) => product * dim, 1);
        const deviation = name === adapter.b ? 0.02 : 1 / Math.sqrt(adapter.in);
        const values = randomValues(count, random, deviation);
        writeSync(file, fromFloat64(dataTypeName(dataType), values), 0, null, data.field.value);
      }
    }
  } finally {
    closeSync(file);
    model.close();
  }
}
