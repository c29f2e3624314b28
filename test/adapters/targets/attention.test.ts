/** Packed attention as a layer: the columns of its parts, and the names of their modules. */
import { describe, expect, it } from 'vitest';
import { findLayers } from '../../../src/adapters/model/layers.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { partPaths } from '../../../src/adapters/targets/fusions.js';
import { parseModel } from '../../../src/onnx/parse.js';
import { MemorySource } from '../../../src/onnx/source.js';
import { model, type NodeProto, node, tensor } from '../../support/models.js';

interface Packed {
  readonly columns?: number;
  readonly weight?: string;
  readonly output?: string;
  readonly sizes?: readonly number[];
  readonly behind?: readonly NodeProto[];
}

function layerOf({ columns = 12, weight = 'qkv', output = 'a', sizes, behind = [] }: Packed) {
  const attributes = { num_heads: 2, ...(sizes ? { qkv_hidden_sizes: [...sizes] } : {}) };
  const bytes = model({
    nodes: [
      node('com.microsoft:Attention', ['x', weight], output, attributes, 'Attention_0'),
      ...behind,
    ],
    initializers: [tensor(weight, [4, columns]), tensor('w', [4, 4])],
    inputs: ['x'],
    outputs: [output],
  });
  return findLayers(new PatchedModel(parseModel(new MemorySource(bytes))))[0]!;
}

describe('the columns of query, key and value', () => {
  it('are thirds, or as the operator says', () => {
    const widths = (sizes?: number[], columns?: number) =>
      layerOf({ sizes, columns } as Packed).linear[0]?.geometry;
    expect(widths()).toEqual({ kind: 'inside', widths: [4, 4, 4] });
    expect(widths([4, 4, 6], 14)).toEqual({ kind: 'inside', widths: [4, 4, 6] });
  });

  it.each([[[4, 4]], [[4, 4, 6]], [[4, 4.5, 3.5]], [[12, 4, -4]]])(
    'have to be all of the weight: %j',
    (sizes) => {
      expect(layerOf({ sizes }).refusal).toContain(
        'its weight qkv has 12 columns, expected those of query, key and value',
      );
    },
  );
});

describe('the modules of query, key and value', () => {
  const behind = (path: string, read: string) => [
    node('MatMul', [read, 'w'], 'b', {}, `/${path}/MatMul`),
  ];
  const partsOf = (packed: Packed) => partPaths(layerOf(packed).module, 3);
  const under = (parent: string, names = ['query', 'key', 'value']) =>
    names.map((name) => `${parent}.${name}`);
  const projections = ['q_proj', 'k_proj', 'v_proj'];

  it.each([
    ['bert/layer.0/attention/output/dense', under('bert.layer.0.attention.self')],
    ['model/layers.0/self_attn/o_proj', under('model.layers.0.self_attn', projections)],
    ['text/layers.0/self_attn/out_proj', under('text.layers.0.self_attn', projections)],
    [
      'distilbert/layer.0/attention/out_lin',
      under('distilbert.layer.0.attention', ['q_lin', 'k_lin', 'v_lin']),
    ],
    ['h.0/attn/c_proj', under('h.0.attn', projections)],
    ['blocks.0/attn/proj', under('blocks.0.attn', ['q', 'k', 'v'])],
  ])('are those before %s', (path, expected) => {
    expect(partsOf({ behind: behind(path, 'a') })).toEqual(expected);
  });

  it('are in the module whose output is read: ViT has another name than BERT', () => {
    const output = '/vit/layer.0/attention/attention/Reshape_3_output_0';
    const after = behind('vit/layer.0/attention/output/dense', output);
    expect(partsOf({ output, behind: after })).toEqual(under('vit.layer.0.attention.attention'));
  });

  it('are of the packed module where the weight has kept its name', () => {
    const weight = 'h.0.attn.c_attn.weight';
    expect(layerOf({ weight, behind: behind('h.0/attn/c_proj', 'a') }).module).toBe(
      'h.0.attn.c_attn',
    );
  });

  it('are of the node where nothing tells more', () => {
    expect(partsOf({})).toEqual(under('Attention_0'));
    expect(partsOf({ behind: behind('pooler', 'a') })).toEqual(under('Attention_0'));
  });
});
