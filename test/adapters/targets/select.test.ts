import { describe, expect, it } from 'vitest';
import { type Selection, select } from '../../../src/adapters/targets/select.js';
import { failure } from '../../support/files.js';

const layer = (module: string, node = `/${module.replaceAll('.', '/')}/MatMul`) => ({
  modules: [module],
  nodeNames: [node],
  isConvolution: module.endsWith('conv'),
});

const layers = [
  layer('encoder.layer.0.attention.query'),
  layer('encoder.layer.0.attention.key'),
  layer('encoder.layer.0.output.dense'),
  layer('encoder.layer.1.attention.query'),
  layer('encoder.layer.10.attention.query'),
  layer('blocks.2.layers.7.dense'),
  layer('stem.conv'),
  layer('classifier', 'Gemm_42'),
  { modules: ['shared.1.a', 'shared.2.a'], nodeNames: ['s1', 's2'], isConvolution: false },
];

function modules(selection: Selection): string[] {
  return select(layers, selection).map(({ modules }) => modules[0]!);
}

const targets = (...patterns: string[]) => modules({ targets: patterns });

const queries = [0, 1, 10].map((i) => `encoder.layer.${i}.attention.query`);

describe('a target pattern', () => {
  it('is a module path, or the end of one after a dot', () => {
    expect(targets('encoder.layer.1.attention.query')).toEqual([queries[1]]);
    expect(targets('query')).toEqual(queries);
    expect(targets('attention.query')).toEqual(queries);
    expect(targets('output.dense', 'query')).toEqual([
      queries[0],
      'encoder.layer.0.output.dense',
      ...queries.slice(1),
    ]);
  });

  it('does not match a part of a segment', async () => {
    await failure(() => targets('uery'), 'no-match');
    await failure(() => targets('layer.0'), 'no-match');
  });

  it('is the name of a node', () => {
    expect(targets('Gemm_42')).toEqual(['classifier']);
  });

  it('matches a shared layer by any of its modules and nodes', () => {
    expect(targets('shared.2.a')).toEqual(['shared.1.a']);
    expect(targets('s2')).toEqual(['shared.1.a']);
  });

  it.each(['re:(a+)+b', 're:(.*.*)*x', `glob:${'*a'.repeat(20)}b`])(
    '%s is given up in seconds',
    async (pattern) => {
      const long = [layer('a'.repeat(40))];
      const start = performance.now();
      const run = () => select(long, { targets: [pattern] });
      const { message } = await failure(run, 'invalid-argument');
      expect(message).toContain('cannot be matched: it takes longer than 2 s');
      expect(performance.now() - start).toBeLessThan(8000);
    },
  );

  it('re: is a regular expression on the whole path', async () => {
    expect(targets(String.raw`re:encoder\.layer\.\d\..*(query|key)`)).toEqual([
      queries[0],
      'encoder.layer.0.attention.key',
      queries[1],
    ]);
    await failure(() => targets('re:query'), 'no-match');
    // Alternatives stay within the anchors.
    expect(targets('re:classifier|query')).toEqual(['classifier']);
  });

  it('glob: has * within a segment and ** across them', async () => {
    expect(targets('glob:encoder.layer.*.attention.query')).toEqual(queries);
    expect(targets('glob:**.query')).toEqual(queries);
    expect(targets('glob:encoder.layer.?.attention.query')).toEqual(queries.slice(0, 2));
    expect(targets('glob:class*')).toEqual(['classifier']);
    await failure(() => targets('glob:*.query'), 'no-match');
  });

  it('all-linear leaves convolutions out, all does not; the default is all-linear', () => {
    expect(targets('all')).toHaveLength(layers.length);
    expect(targets('all-linear')).toHaveLength(layers.length - 1);
    expect(targets('all-linear')).not.toContain('stem.conv');
    expect(modules({})).toEqual(targets('all-linear'));
    expect(targets('conv')).toEqual(['stem.conv']);
  });

  it('names each layer once, in the order of the model', () => {
    expect(targets('classifier', 'query', 'all', 'query')).toEqual(modules({ targets: ['all'] }));
  });
});

describe('exclude', () => {
  it('takes away from what targets name', () => {
    expect(modules({ targets: ['query', 'key'], exclude: ['glob:encoder.layer.0.**'] })).toEqual(
      queries.slice(1),
    );
  });

  it('has to match a layer too', async () => {
    const error = await failure(() => modules({ exclude: ['qery'] }), 'no-match');
    expect(error.message).toContain('exclude pattern "qery"');
  });
});

describe('layers', () => {
  it('keeps modules by the first number in their path', () => {
    expect(modules({ targets: ['query', 'dense'], layers: '0,2' })).toEqual([
      queries[0],
      'encoder.layer.0.output.dense',
      'blocks.2.layers.7.dense',
    ]);
    expect(modules({ targets: ['query'], layers: '1-10' })).toEqual(queries.slice(1));
    expect(modules({ targets: ['query'], layers: ' 0 - 1 , 10 ' })).toEqual(queries);
  });

  it('says so where nothing is left', async () => {
    const error = await failure(() => modules({ targets: ['query'], layers: '7' }), 'no-match');
    expect(error.message).toBe('layers 7 leaves none of the 3 matching layers');
  });

  it.each(['x', '', '3-1', '1-', '-1', '1;2', '0-99999999'])('refuses %j', async (list) => {
    await failure(() => modules({ layers: list }), 'invalid-argument');
  });
});

describe('a pattern that matches nothing', () => {
  it('names what comes near it', async () => {
    const error = await failure(() => targets('qurey'), 'no-match');
    expect(error.message).toBe('target pattern "qurey" matches no layer; near: query, key');
    const path = await failure(() => targets('encoder.layer.0.atention.key'), 'no-match');
    expect(path.message).toContain('near: encoder.layer.0.attention.key');
  });

  it('names nothing where nothing comes near it', async () => {
    const error = await failure(() => targets('zzzzzzzzzz'), 'no-match');
    expect(error.message).toBe('target pattern "zzzzzzzzzz" matches no layer');
  });

  it('is told from a regular expression that is none', async () => {
    const error = await failure(() => targets('re:(query'), 'invalid-argument');
    expect(error.message).toContain('re:(query is not a regular expression');
  });
});
