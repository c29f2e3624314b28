import fc from 'fast-check';
import { expect, it } from 'vitest';
import { shapeOfA, shapeOfB } from '../../../src/adapters/structure/structure.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import { collect } from '../../../src/onnx/edit.js';
import { openSession } from '../../../src/runtime/session.js';
import { deltaMatrix } from '../../../src/training/layers/delta.js';
import { maxAbs, maxDifference } from '../../support/run.js';
import { float32Numbers, randomFactors, referenceDelta, structureCases } from './structures.js';

it('the matrix of an adapter is s · A · B by its definition, block by block', async () => {
  const cases = fc.tuple(structureCases, fc.integer({ min: 1, max: 1e6 }), fc.constantFrom(13, 17));
  await fc.assert(
    fc.asyncProperty(cases, async ([s, seed, version]) => {
      const factors = randomFactors(s, seed);
      const [scale] = float32Numbers(seed + 9, 1);
      const graph = new GraphBuilder([{ domain: '', version }]);
      const add = (name: string, shape: readonly number[]) => {
        graph.reserve(name);
        graph.inputs.push({ name, dtype: 'float32', shape });
      };
      add('a', shapeOfA(s));
      add('b', shapeOfB(s));
      add('scale', []);
      const hybrid = s.hybridRank > 0 ? { generalA: 'generalA', generalB: 'generalB' } : {};
      if (s.hybridRank > 0) {
        add('generalA', [s.in, s.hybridRank]);
        add('generalB', [s.hybridRank, s.out]);
      }
      const output = deltaMatrix(graph, s, { a: 'a', b: 'b', scale: 'scale', ...hybrid });
      graph.outputs.push({ name: output, dtype: 'float32', shape: null });
      const session = await openSession(await collect(graph.modelPieces()));
      const values: Record<string, ArrayLike<number>> = { ...factors, scale: [scale!] };
      const feeds = graph.inputs.map(({ name, shape }) => {
        const data = Float32Array.from(values[name]!);
        return [name, { dtype: 'float32', dims: shape as number[], data }] as const;
      });
      const found = (await session.run(new Map(feeds))).get(output)!;
      await session.release();
      expect(found.dims).toEqual([s.in, s.out]);
      const expected = referenceDelta(s, factors, scale!);
      const error = maxDifference(Float64Array.from(found.data as Float32Array), expected);
      expect(error).toBeLessThan(1e-6 * Math.max(1, maxAbs(expected)));
    }),
    { numRuns: 150 },
  );
});
