/** The package as others use it, by its name: runs what was built. */
import { copyFileSync, cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import ts from 'typescript';
import { beforeAll, describe, expect, expectTypeOf, it } from 'vitest';
import type * as library from '../src/index.js';
import type * as graphs from '../src/pieces.js';
import { sameFiles, temporaryFolder } from './support/files.js';
import { recorded } from './support/recorded.js';
import { zooSamples } from './support/samples.js';
import { zooModel } from './support/zoo.js';

// Names that are not written out, so that types are checked before anything is built.
const [name, parts]: string[] = ['onnx-lora', 'onnx-lora/graph'];
const called = { stable: new Set<string>(), pieces: new Set<string>() };
const stable: typeof library = recorded(await import(name!), called.stable);
const pieces: typeof graphs = recorded(await import(parts!), called.pieces);

/** Names of the functions and classes of an entry. */
function functionsOf(entry: object): string[] {
  return Object.entries(entry).flatMap(([name, value]) =>
    typeof value === 'function' ? [name] : [],
  );
}

const entries = ['index', 'pieces'].map((file) =>
  fileURLToPath(new URL(`../dist/src/${file}.d.ts`, import.meta.url)),
);

/** Types that declarations of an entry name, and that it does not export. */
function unexported(entry: string): string[] {
  const { ESNext } = ts.ScriptTarget;
  const { NodeNext: module } = ts.ModuleKind;
  const options = { target: ESNext, module, skipLibCheck: true, types: ['node'] };
  const program = ts.createProgram([entry], options);
  const checker = program.getTypeChecker();
  const resolved = (symbol: ts.Symbol) =>
    symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  const file = checker.getSymbolAtLocation(program.getSourceFile(entry)!)!;
  const exported = new Set(checker.getExportsOfModule(file).map(resolved));
  const isOurs = (symbol: ts.Symbol) =>
    symbol.declarations?.some((one) => one.getSourceFile().fileName.includes('/dist/src/'));
  const missing = new Set<string>();
  const look = (node: ts.Node): void => {
    if (ts.canHaveModifiers(node)) {
      const modifiers = ts.getModifiers(node) ?? [];
      if (modifiers.some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword)) return;
    }
    if (ts.isTypeReferenceNode(node) || ts.isExpressionWithTypeArguments(node)) {
      const found = checker.getSymbolAtLocation(
        ts.isTypeReferenceNode(node) ? node.typeName : node.expression,
      );
      const symbol = found && resolved(found);
      const isType = symbol && symbol.flags & ts.SymbolFlags.Type;
      const isParameter = symbol && symbol.flags & ts.SymbolFlags.TypeParameter;
      if (isType && !isParameter && isOurs(symbol) && !exported.has(symbol)) {
        missing.add(symbol.name);
      }
    }
    ts.forEachChild(node, look);
  };
  for (const symbol of exported) if (isOurs(symbol)) symbol.declarations?.forEach(look);
  // Works a type out from a table of options, and is nothing to write down.
  missing.delete('OptionsOf');
  return [...missing].sort();
}

describe('the package', () => {
  it.each(entries)('exports every type that its declarations name: %s', (entry) => {
    expect(unexported(entry)).toEqual([]);
  });

  it('narrows errors by their code', async () => {
    const error = await stable.inspect('missing.onnx').catch((one: unknown) => one);
    expect(error).toBeInstanceOf(stable.OnnxLoraError);
    expect(error).toMatchObject({ code: 'file-not-found' });
    const own = new stable.OnnxLoraError('no-match', 'found none', { hint: 'Look again.' });
    expect(own).toMatchObject({ code: 'no-match', message: 'found none', hint: 'Look again.' });
    expectTypeOf<library.OnnxLoraError['code']>().toEqualTypeOf<library.ErrorCode>();
  });
});

const cpu = { provider: 'cpu', threads: 1 } as const;
const targets = ['query'];
const data = { data: 'train.safetensors', loss: 'cross-entropy' } as const;

describe('every function works through the name of the package', () => {
  const files = temporaryFolder();
  const at = (name: string) => join(files.path, name);
  const [base, lora, trained, adapter, slots, tuned, llama, samples] = [
    ...['model.onnx', 'model.lora.onnx', 'trained.onnx', 'adapter.safetensors'],
    ...['slots.onnx', 'tuned.onnx', 'llama.onnx', 'samples.safetensors'],
  ] as const;
  const learning = () => ({ ...data, data: at(samples), ...cpu });

  beforeAll(() => {
    copyFileSync(zooModel('bert-cls-torchscript'), at(base));
    copyFileSync(zooModel('llama-causal'), at(llama));
    writeFileSync(at(samples), zooSamples('bert-cls-torchscript', 'lora', 1));
    const tokenizer = new URL('fixtures/tokenizers/unigram', import.meta.url);
    cpSync(fileURLToPath(tokenizer), at('llama'), { recursive: true });
  });

  it('patches, trains, evaluates, folds and undoes', async () => {
    const patched = await stable.patch(at(base), { targets, rank: 4, seed: 1 });
    expect(patched).toMatchObject({ output: at(lora), adapters: [{ rank: 4 }, { rank: 4 }] });
    const run = await stable.train(at(lora), {
      ...{ ...learning(), steps: 2, lr: 0.01, output: at(trained) },
    });
    expect(run).toMatchObject({ output: at(trained), steps: 2, guard: { passed: true } });
    const measured = await stable.evaluate(at(trained), learning());
    expect(measured).toMatchObject({ samples: 8, accuracy: expect.any(Number) });
    const merged = await stable.merge(at(trained), { output: at(tuned) });
    expect(merged.verification).toMatchObject({ passed: true });
    const { output } = await stable.unpatch(at(trained));
    expect(sameFiles(output, at(base))).toBe(true);
    const { summary } = await stable.inspect(at(trained));
    expect(summary).toMatchObject({ adapted: 2, targets: 18 });
  });

  it('takes adapters out, puts them in, combines and finds them', async () => {
    const { adapters: names } = await stable.extract(at(trained), { output: at(adapter) });
    const applied = await stable.apply(at(base), at(adapter), { output: at('applied.onnx') });
    expect(applied.adapters.map(({ name }) => name)).toEqual(names);
    const sum = { output: at('sum.safetensors'), weights: [0.5] };
    const { adapters } = await stable.combine([at(adapter)], sum);
    expect(adapters).toMatchObject([{ inputs: [0] }, { inputs: [0] }]);
    const fitted = await stable.fit(at(base), at(tuned), {
      ...{ output: at('fitted.safetensors'), structure: 'localized', rank: 4 },
    });
    expect(fitted).toMatchObject({ layers: [{}, {}], rest: [] });
    expect(fitted.error).toBeLessThan(1e-3);
    const { basis, patch } = await stable.advise(at(base), { tuned: at(tuned), targets, rank: 4 });
    expect(basis).toBe('tuned');
    expect(patch).toMatchObject({ structure: 'localized', rank: 4 });
  });

  it('switches adapters in slots, and compares models', async () => {
    const added = await stable.addSlots(at(base), { targets, output: at(slots) });
    expect(added.slots).toHaveLength(2);
    const dataset = await stable.openDataset(at(samples));
    const feeds = await dataset.batch([0, 1], ['input_ids', 'attention_mask']);
    dataset.close();
    const session = await stable.AdapterSession.open(at(slots), { threads: 1 });
    session.load('tuned', at(adapter));
    const outputs = await session.run(feeds, { adapters: 'tuned' });
    await session.release();
    const plain = await stable.openSession(at(tuned), { threads: 1 });
    const expected = (await plain.run(feeds)).get('logits')!.data;
    await plain.release();
    const logits = outputs.get('logits')!.data;
    for (const [i, value] of [...logits].entries()) {
      expect(Number(value)).toBeCloseTo(Number(expected[i]), 4);
    }
    const two = [{ path: at(trained) }, { path: at(tuned) }] as const;
    expect(await stable.verifyModels(at(trained), ...two, {})).toMatchObject({ passed: true });
    expect(await stable.compareModels(...two, [feeds])).toMatchObject({ passed: true });
    const { operators } = await stable.profileModel(at(base), feeds, { threads: 1 });
    expect(operators.map(({ op }) => op)).toContain('MatMul');
  });

  it('writes texts, reads files and knows what runs here', async () => {
    const how = { ...cpu, tokenizer: at('llama') };
    const sampling = { maxNewTokens: 3 };
    const answer = await stable.generate(at(llama), { ...how, ...sampling, prompt: 'the model' });
    const model = await stable.TextGenerator.open(at(llama), how);
    expect((await model.complete('the model', sampling)).text).toBe(answer.text);
    await model.release();
    const tokenizer = stable.TextTokenizer.open(at('llama'));
    const { ids } = tokenizer.encode(['the model'], { special: false });
    expect(tokenizer.decode(ids)).toBe('the model');
    const file = stable.openSafetensors(at(samples));
    expect([...file.tensors.keys()].sort()).toEqual(['attention_mask', 'input_ids', 'labels']);
    file.close();
    const [first] = await stable.listProviders();
    expect(first).toMatchObject({ name: 'cpu', usable: true });
    expect(await stable.resolveProvider('cpu')).toMatchObject({ requested: 'cpu', used: 'cpu' });
    const { data } = stable.tensorFromNumbers('float16', [2], Float64Array.of(1, 0.5));
    expect([...data]).toEqual([0x3c00, 0x3800]);
  });

  // What the tests above have called: run the whole file.
  it('leaves none of onnx-lora out', () => {
    expect(functionsOf(stable).filter((name) => !called.stable.has(name))).toEqual([]);
  });

  it('reads files, nodes, weights and adapters', async () => {
    const opened = pieces.openModel(at(base));
    const model = pieces.parseModel(new pieces.MemorySource(readFileSync(at(base))));
    expect([...pieces.allGraphs(model.graph)]).toHaveLength(1);
    expect(model.graph.nodes.map(pieces.nodeLabel)).toEqual(
      opened.graph.nodes.map(pieces.nodeLabel),
    );
    opened.close();
    const source = new pieces.FileSource(at(base));
    expect(source.size).toBe(model.source.size);
    source.close();
    const values = new pieces.ValueIndex(model);
    const found = pieces.findLinearLayers(model, values);
    const layer = found.find((one) => 'weight' in one)!;
    if (!('weight' in layer)) return expect.unreachable();
    const constant = pieces.traceConstant(values, model.graph, layer.weight.name)!;
    const external = new pieces.ExternalFiles(model);
    const reader = new pieces.TensorReader(model, external);
    expect(reader.float32(constant.tensor)).toHaveLength(64 * 64);
    external.close();
    const file = pieces.openAdapter(at(adapter));
    expect(file.adapters).toHaveLength(2);
    file.close();
  });

  it('finds layers and adapters of a patched model', async () => {
    const opened = pieces.OpenedModel.open(at(trained));
    const sets = pieces.readManifests(opened.model);
    expect(new pieces.PatchedModel(opened.model).sets).toEqual(sets);
    const layers = pieces.findLayers(opened.patched);
    const chosen = pieces.select(layers, { targets });
    expect(chosen).toEqual(layers.filter(pieces.matcher('query')));
    expect(chosen.map(({ nodes }) => nodes.length)).toEqual([1, 1]);
    opened.close();
  });

  it('fits structures to a matrix', async () => {
    // [1 2; 2 4] is of rank 1: one singular value, 5.
    const matrix = Float64Array.of(1, 2, 2, 4);
    const svd = await pieces.truncatedSvd(matrix, 2, 2, 1);
    expect(svd.s[0]).toBeCloseTo(5);
    const structure = pieces.planStructure(2, 2, { structure: 'global', rank: 1, blocks: 1 });
    const parts = await pieces.decompose(matrix, structure, 1);
    expect(pieces.capturedByRank(parts, 1).at(-1)).toBeCloseTo(25);
    const { a, b } = await pieces.fitStructure(matrix, structure);
    expect(pieces.fitOf(parts, structure)).toMatchObject({ a, b });
    expect(a[0]! * b[0]!).toBeCloseTo(1);
  });

  it('trains step by step', async () => {
    await pieces.withModel(at(lora), async ({ patched, reader }) => {
      const forward = await pieces.buildForward(patched, reader, { loss: 'cross-entropy' });
      const step = await pieces.buildStepGraph(forward, {
        ...{ optimizer: 'sgd', momentum: 0, weightDecay: 0, betas: [0.9, 0.999], eps: 1e-8 },
        ...{ clip: 0, accumulate: 1, fused: true },
      });
      const theta = new Float64Array(step.size);
      for (const { name, offset } of forward.parameters) {
        theta.set(reader.float64(patched.model.graph.initializers.get(name)!), offset);
      }
      const initial = pieces.tensorFromNumbers('float32', [step.size], theta);
      const session = await pieces.openStatefulSession(await step.graph.toBytes(), {
        ...{ state: step.state, initial: new Map([[step.inputs.theta!, initial]]), threads: 1 },
      });
      const dataset = await stable.openDataset(at(samples));
      const batch = await dataset.batch([0, 1, 2, 3, 4, 5, 6, 7]);
      dataset.close();
      const schedule = { kind: 'constant', lr: 0.1, warmup: 0, steps: 3 } as const;
      const losses: number[] = [];
      for (let i = 0; i < 3; i++) {
        const rate = Float64Array.of(pieces.learningRate(schedule, i));
        const lr = pieces.tensorFromNumbers('float32', [], rate);
        const outputs = await session.run(new Map([...batch, [step.inputs.lr!, lr]]));
        losses.push(Number(outputs.get(step.loss)!.data[0]));
      }
      await session.release();
      expect(losses).toEqual([...losses].sort((a, b) => b - a));
    });
  });

  it('gives gradients of weights', async () => {
    await pieces.withModel(at(base), async ({ patched, reader }) => {
      const layers = pieces.select(pieces.findLayers(patched), { targets });
      const norms: number[] = [];
      const options = { ...learning(), batches: 1 };
      for await (const found of pieces.weightGradients(patched, reader, layers, options)) {
        if ('values' in found) norms.push(Math.hypot(...found.values));
      }
      expect(norms).toHaveLength(2);
      expect(Math.min(...norms)).toBeGreaterThan(0);
    });
  });

  it('puts a loss behind a model', async () => {
    await pieces.withModel(at(base), async ({ model, reader }) => {
      const graph = pieces.loadGraph(model, reader);
      const logits = { name: 'logits', dtype: 'float32', shape: ['batch', 3] } as const;
      const { loss, inputs } = pieces.addLoss(graph, 'cross-entropy', logits);
      graph.outputs.splice(0, graph.outputs.length, { name: loss, dtype: 'float32', shape: [] });
      pieces.prune(graph);
      expect(inputs).toMatchObject([{ name: 'labels', dtype: 'int64' }]);
      expect((await pieces.inferTypes(graph)).get(loss)).toMatchObject({ shape: [] });
      const session = await pieces.openSession(await graph.toBytes(), { threads: 1 });
      expect(session.outputs).toMatchObject([{ name: loss }]);
      await session.release();
    });
  });

  it('builds a graph, differentiates it and gives bytes that ONNX Runtime runs', async () => {
    const graph = new pieces.GraphBuilder([{ domain: '', version: 17 }]);
    const x = { name: 'x', dtype: 'float32', shape: [3] } as const;
    graph.inputs.push(x);
    graph.reserve('x');
    const square = graph.op('Mul', ['x', 'x']);
    const loss = graph.op('ReduceSum', [square], { keepdims: { int: 0 } });
    const types = new Map<string, graphs.ValueType>([
      ['x', x],
      [square, x],
      [loss, { dtype: 'float32', shape: [] } as const],
    ]);
    const gradient = pieces.differentiate(graph, types, loss, ['x']).get('x')!;
    graph.outputs.push({ name: gradient, dtype: 'float32', shape: [3] });
    const session = await InferenceSession.create(await graph.toBytes());
    const feeds = { x: new Tensor('float32', [1, -2, 3], [3]) };
    const { data } = (await session.run(feeds))[gradient]!;
    expect([...(data as Float32Array)]).toEqual([2, -4, 6]);
    await session.release();
  });

  it('leaves none of onnx-lora/graph out', () => {
    expect(functionsOf(pieces).filter((name) => !called.pieces.has(name))).toEqual([]);
  });
});
