import { expect, it } from 'vitest';
import { weightByIdentity } from '../../../src/adapters/fold/dequantize.js';
import { findLinearLayers, type LinearLayer } from '../../../src/adapters/targets/index.js';
import { ValueIndex } from '../../../src/graph/uses.js';
import { ExternalFiles } from '../../../src/onnx/external.js';
import { TensorReader } from '../../../src/onnx/tensor.js';
import { linearModel } from '../../support/linear.js';
import { parse } from '../../support/wire.js';

it('rows of a quantized weight can be read again after the last', async () => {
  const model = parse(
    linearModel({
      ...{
        kind: 'MatMulNBits',
        in: 32,
        out: 4,
        dtype: 'float32',
        opset: 17,
        leading: [3],
        seed: 1,
      },
      ...{ weightForm: 'initializer', transA: false, transB: false, alpha: 1, stride: 1 },
      ...{ bias: false, fixed: true },
    }).bytes,
  );
  const context = {
    model,
    values: new ValueIndex(model),
    reader: new TensorReader(model, new ExternalFiles(model)),
  };
  const [found] = findLinearLayers(model, context.values);
  const weight = weightByIdentity(context, found as LinearLayer);
  const first = await weight.readRows(0, 32);
  expect(await weight.readRows(16, 32)).toEqual(first.subarray(16 * 4 * 4));
  expect(await weight.readRows(0, 32)).toEqual(first);
});
