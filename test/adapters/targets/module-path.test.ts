import { describe, expect, it } from 'vitest';
import { findLayers } from '../../../src/adapters/model/layers.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { modulePath } from '../../../src/adapters/targets/module-path.js';
import type { Node } from '../../../src/onnx/model.js';
import { openModel } from '../../../src/onnx/parse.js';
import { temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { type ZooMap, zooCases, zooJson, zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();

interface Source {
  name?: string;
  scopes?: string;
  weight?: string;
}

function pathOf({ name = '', scopes, weight = '' }: Source): string {
  const metadata = scopes ? [{ key: 'pkg.torch.onnx.name_scopes', value: () => scopes }] : [];
  return modulePath({ name, metadata, outputs: ['out'] } as unknown as Node, weight);
}

describe('a module path', () => {
  const weight = 'from.weight.weight';
  const scopes = "['', 'from', 'from.scopes', 'linear']";

  it('comes from the node name, else the name scopes, else the weight name', () => {
    expect(pathOf({ name: '/from/node.0/name/MatMul', scopes, weight })).toBe('from.node.0.name');
    expect(pathOf({ name: 'node_linear', scopes, weight })).toBe('from.scopes');
    expect(pathOf({ name: 'node_linear', weight })).toBe('from.weight');
  });

  it('is the name of the node or of its output where nothing tells the module', () => {
    expect(pathOf({ name: 'MatMul_7', weight: 'onnx::MatMul_814' })).toBe('MatMul_7');
    expect(pathOf({ weight: 'val_92' })).toBe('out');
    expect(pathOf({ name: '/MatMul' })).toBe('/MatMul');
  });

  it('takes quotes as Python writes them', () => {
    expect(pathOf({ scopes: `['', "it's", 'linear']` })).toBe("it's");
  });

  it.each([
    ['a.b.weight', 'a.b'],
    ['a.b.weight_quantized', 'a.b'],
    ['dense.kernel', 'dense'],
    ['linear_0.w_0', 'linear_0'],
  ])('of the weight %s is %s', (name, expected) => {
    expect(pathOf({ weight: name })).toBe(expected);
  });

  it.each(['onnx::MatMul_814.weight', 'val_92', 'bias', 'weight'])(
    'does not come from the name %s',
    (name) => {
      expect(pathOf({ name: 'node', weight: name })).toBe('node');
    },
  );
});

it('comes from the bias where folding has renamed the weight', () => {
  const path = folder.write(
    model({
      nodes: [
        node('MatMul', ['x', 'onnx::MatMul_814'], 'h', {}, 'MatMul_36'),
        node('Add', ['layer.0.query.bias', 'h'], 'q', {}, 'Add_37'),
        node('Gemm', ['x', '1274', 'layer.0.key.bias'], 'k', {}, 'Gemm_38'),
        node('MatMul', ['x', 'onnx::MatMul_815'], 'v', {}, 'MatMul_39'),
      ],
      initializers: [
        tensor('onnx::MatMul_814', [8, 8]),
        tensor('layer.0.query.bias', [8]),
        tensor('1274', [8, 8]),
        tensor('layer.0.key.bias', [8]),
        tensor('onnx::MatMul_815', [8, 8]),
      ],
      inputs: [value('x', [2, 8])],
      outputs: ['q', 'k', 'v'],
    }),
  );
  const modules = modulesOf(path).map(({ module }) => module);
  expect(modules).toEqual(['layer.0.query', 'layer.0.key', 'MatMul_39']);
});

/** Module paths by node; with `hide` those of the nodes that it leaves. */
function modulesOf(path: string, hide?: (node: Node) => Partial<Node>) {
  const model = openModel(path);
  try {
    const layers = findLayers(new PatchedModel(model));
    return layers.flatMap(({ nodes, modules, linear, refusal }) =>
      nodes.map((node, i) => {
        const { constant, name } = linear[i]?.weight ?? {};
        const weight = constant?.tensor.name || name || '';
        const module = hide ? modulePath({ ...node, ...hide(node) }, weight) : modules[i]!;
        return { node: node.name, module, refusal };
      }),
    );
  } finally {
    model.close();
  }
}

it('is the same from node names, from name scopes and from weight names', () => {
  const expected = Object.keys(zooJson<ZooMap>('bert-cls-torchscript', 'map.json').modules);
  const encoder = (name: string, hide?: (node: Node) => Partial<Node>) =>
    modulesOf(zooModel(name), hide)
      .filter(({ module, refusal }) => module.startsWith('bert.encoder') && !refusal)
      .map(({ module }) => module);
  const nameless = () => ({ name: '', metadata: [] });
  expect(expected).toHaveLength(12);
  expect(encoder('bert-cls-torchscript')).toEqual(expected);
  expect(encoder('bert-cls-dynamo')).toEqual(expected);
  // Folded into the transposed weight the name is lost, `onnx::MatMul_356`; unfolded it is there.
  expect(encoder('bert-nofold', nameless)).toEqual(expected);
  expect(encoder('bert-dynamo-noopt', nameless)).toEqual(expected);
});

describe('the module paths of a real model', () => {
  // Integer arithmetic and DequantizeLinear in the place of the layers, whose names stayed.
  const replaced = ['bert-int8-channel', 'bert-int8-dynamic', 'bert-qdq'];
  const mapped = zooCases.filter((name) => ![...replaced, 'llama-q4'].includes(name));

  it.each(mapped)('%s are those of PyTorch', (name) => {
    const { prefix, modules } = zooJson<ZooMap>(name, 'map.json');
    const found = new Map(modulesOf(zooModel(name)).map(({ node, module }) => [node, module]));
    const entries = Object.entries(modules).filter(([, { nodes }]) => nodes.length > 0);
    expect(entries.length).toBeGreaterThan(2);
    for (const [module, { nodes }] of entries) {
      expect(found.get(nodes[0]!.node)).toBe(prefix ? `${prefix}.${module}` : module);
    }
  });

  it.each(replaced)('%s are those of PyTorch', (name) => {
    const { modules } = zooJson<ZooMap>(name, 'map.json');
    const found = modulesOf(zooModel(name)).map(({ module }) => module);
    expect(found).toEqual(expect.arrayContaining(Object.keys(modules)));
  });

  it('are found behind a quantizer, which drops name scopes', () => {
    const { modules } = zooJson<ZooMap>('llama-q4', 'map.json');
    const quantized = modulesOf(zooModel('llama-q4')).filter(({ node }) => node.endsWith('_Q4'));
    expect(quantized.map(({ module }) => module)).toEqual([...Object.keys(modules), 'lm_head']);
  });
});
