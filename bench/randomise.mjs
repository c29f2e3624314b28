/**
 * Random numbers for the factors of a patched model, in place: B starts at zero, and an adapter of
 * zeros would be no test of a merge.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { PatchedModel } from '../dist/src/adapters/model/patched.js';
import { dataTypeName, fromFloat64 } from '../dist/src/onnx/dtype.js';
import { openModel } from '../dist/src/onnx/parse.js';
import { randomValues, uniform } from './models.mjs';

/** @param {string} path a model that bench code has just patched @param {number} seed */
export function randomiseAdapters(path, seed = 0) {
  const model = openModel(path);
  const random = uniform(13 + seed);
  const file = openSync(path, 'r+');
  try {
    const patched = new PatchedModel(model);
    for (const adapter of patched.sets.flatMap(({ adapters }) => adapters)) {
      const { a, b, generalA, generalB } = adapter;
      for (const name of [a, b, generalA, generalB]) {
        if (name === undefined) continue;
        const { dims, dataType, data } = patched.initializer(name);
        const count = dims.reduce((product, dim) => product * dim, 1);
        const deviation = name === b || name === generalB ? 0.02 : 1 / Math.sqrt(adapter.in);
        const values = randomValues(count, random, deviation);
        writeSync(file, fromFloat64(dataTypeName(dataType), values), 0, null, data.field.value);
      }
    }
  } finally {
    closeSync(file);
    model.close();
  }
}
