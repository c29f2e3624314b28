import fc from 'fast-check';
import { expect, it } from 'vitest';
import { shapeOfA, shapeOfB } from '../../../src/adapters/structure/structure.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import type { ValueType } from '../../../src/graph/value-type.js';
import { collect } from '../../../src/onnx/edit.js';
import type { Dim } from '../../../src/onnx/model.js';
import { openSession } from '../../../src/runtime/session.js';
import { factorGradients } from '../../../src/training/layers/factor-gradients.js';
import { maxAbs, maxDifference } from '../../support/run.js';
import { float32Numbers, forEachTerm, randomFactors, structureCases } from './structures.js';

/** `dA = s · dW · Bᵀ` and `dB = s · Aᵀ · dW`, taken from every term of ΔW, with the whole of dW = Xᵀ·dY. */
it('the gradients of factors are those of the dense gradient, in both dialects', async () => {
  const cases = fc.record({
    s: structureCases,
    leading: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
    fused: fc.boolean(),
    symbolic: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1e6 }),
    scale: fc.constantFrom(1, 0.5, -2),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ s, leading, fused, symbolic, seed, scale }) => {
      const { a, b } = randomFactors(s, seed);
      const rows = leading.reduce((x, y) => x * y, 1);
      const x = float32Numbers(seed + 5, rows * s.in);
      const dy = float32Numbers(seed + 6, rows * s.out);
      const sizes: Dim[] = leading.map((size, i) => (symbolic ? `d${i}` : size));
      const shapes = {
        a: shapeOfA(s),
        b: shapeOfB(s),
        x: [...sizes, s.in],
        dy: [...sizes, s.out],
      };
      const graph = new GraphBuilder([{ domain: '', version: 17 }]);
      if (fused) graph.importDomain('com.microsoft', 1);
      const types = new Map<string, ValueType>();
      for (const [name, shape] of Object.entries(shapes)) {
        graph.reserve(name);
        graph.inputs.push({ name, dtype: 'float32', shape });
        types.set(name, { dtype: 'float32', shape });
      }
      const names = { x: 'x', dy: 'dy', a: 'a', b: 'b' };
      const gradients = factorGradients(new OpBuilder(graph, types), s, scale, names, { fused });
      const outputs = [gradients.a(), gradients.b()] as const;
      for (const name of outputs) graph.outputs.push({ name, dtype: 'float32', shape: null });
      const session = await openSession(await collect(graph.modelPieces()));
      const feeds = Object.entries({ a, b, x, dy }).map(([name, values]) => {
        const dims = shapes[name as keyof typeof shapes].map((dim) =>
          typeof dim === 'string' ? leading[Number(dim.slice(1))]! : dim!,
        );
        return [name, { dtype: 'float32', dims, data: Float32Array.from(values) }] as const;
      });
      const results = await session.run(new Map(feeds));
      await session.release();
      const dense = denseGradient(x, dy, rows, s.in, s.out);
      const [da, db] = [new Float64Array(a.length), new Float64Array(b.length)];
      forEachTerm(s, (i, j, w) => {
        da[i]! += scale * dense[w]! * b[j]!;
        db[j]! += scale * dense[w]! * a[i]!;
      });
      for (const [i, expected] of [da, db].entries()) {
        const found = results.get(outputs[i]!)!;
        expect(found.dims).toEqual(i === 0 ? shapes.a : shapes.b);
        const error = maxDifference(Float64Array.from(found.data as Float32Array), expected);
        expect(error).toBeLessThan(1e-5 * Math.max(1, maxAbs(expected)));
      }
    }),
    { numRuns: 200 },
  );
});

function denseGradient(
  x: Float64Array,
  dy: Float64Array,
  rows: number,
  height: number,
  width: number,
) {
  const gradient = new Float64Array(height * width);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < height; i++) {
      for (let o = 0; o < width; o++) {
        gradient[i * width + o]! += x[row * height + i]! * dy[row * width + o]!;
      }
    }
  }
  return gradient;
}
