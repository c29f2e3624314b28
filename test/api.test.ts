/** The package as others use it, by its name: runs what was built. */
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import ts from 'typescript';
import { describe, expect, expectTypeOf, it } from 'vitest';
import type * as library from '../src/index.js';
import type * as graphs from '../src/pieces.js';

// Names that are not written out, so that types are checked before anything is built.
const [name, parts]: string[] = ['onnx-lora', 'onnx-lora/graph'];
const stable: typeof library = await import(name!);
const pieces: typeof graphs = await import(parts!);

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

  it('has every command, and narrows errors by their code', async () => {
    const { combine, addSlots, patch, apply, extract, merge, unpatch } = stable;
    const { train, evaluate, inspect, fit, advise } = stable;
    const commands = { combine, addSlots, patch, apply, extract, merge, unpatch };
    for (const command of Object.values({ ...commands, train, evaluate, inspect, fit, advise })) {
      expect(command).toBeTypeOf('function');
    }
    const error = await stable.inspect('missing.onnx').catch((one: unknown) => one);
    expect(error).toBeInstanceOf(stable.OnnxLoraError);
    expect(error).toMatchObject({ code: 'file-not-found' });
    expectTypeOf<library.OnnxLoraError['code']>().toEqualTypeOf<library.ErrorCode>();
    expectTypeOf(stable.merge).returns.resolves.toEqualTypeOf<library.MergeResult>();
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
});
