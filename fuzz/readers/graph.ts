import { join } from 'node:path';
import { loadGraph } from '../../src/graph/load.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { MODEL, ofModels } from '../models/reader.js';
import type { Reader } from '../reader.js';

/** What training starts with: the graph, its functions inlined. */
export const graphReader: Reader = {
  ...ofModels,
  run: (folder) => {
    const model = openModel(join(folder, MODEL));
    const files = new ExternalFiles(model);
    try {
      loadGraph(model, new TensorReader(model, files));
    } finally {
      files.close();
      model.close();
    }
  },
};
