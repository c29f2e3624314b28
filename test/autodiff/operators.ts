/** One line a case: an operator with its attributes, checked with static and with symbolic shapes. */
import { test } from 'vitest';
import type { Attributes, GraphBuilder } from '../../src/graph/builder.js';
import type { AttributeValue } from '../../src/onnx/encode.js';
import { type Build, type Case, checkGradients } from './check.js';

export interface Options extends Partial<Omit<Case, 'build' | 'shapes' | 'symbols'>> {
  readonly attributes?: Attributes;
  /** Which sizes may be symbols; it is checked without and, by default, with all as symbols. */
  readonly symbols?: 'none' | 'all' | 'lengths';
}

/** `operator('MatMul', [[2, 3], [3, 4]])`; a domain stands before the type. */
export function operator(name: string, shapes: Case['shapes'], options: Options = {}): void {
  gradients(title(name, shapes, options), node(name, options.attributes), shapes, options);
}

/** The same for an operator that has further inputs. */
export function gradients(
  name: string,
  build: Build,
  shapes: Case['shapes'],
  { attributes: _, symbols: most = 'all', ...options }: Options = {},
): void {
  for (const symbols of new Set(['none', most] as const)) {
    test(`${name}${symbols === 'none' ? '' : ', symbolic sizes'}`, async () => {
      await checkGradients({ build, shapes, symbols, ...options });
    });
  }
}

function title(name: string, shapes: Case['shapes'], { attributes = {}, opset }: Options): string {
  const values = Object.entries(attributes).map(([key, value]) => ` ${key} ${shown(value)}`);
  const version = opset === undefined ? '' : ` opset ${opset}`;
  return `${name} ${shapes.map((shape) => `[${shape}]`).join(' ')}${values.join('')}${version}`;
}

function shown(value: AttributeValue): string {
  return Object.values(value).join(' ');
}

/** A node that has only differentiable inputs. */
export function node(name: string, attributes: Attributes = {}): Build {
  return (graph, inputs) => add(graph, name, inputs, attributes);
}

/** A node of any domain with one output that matters. */
export function add(
  graph: GraphBuilder,
  name: string,
  inputs: readonly string[],
  attributes: Attributes = {},
): string {
  const [domain, opType] = name.includes(':') ? name.split(':') : ['', name];
  const output = graph.fresh('output');
  const made = { name: output, opType: opType!, inputs, outputs: [output], attributes };
  graph.add(domain === '' ? made : { ...made, domain: domain! });
  return output;
}

/** A constant of the type that the graph is in. */
export function constant(
  graph: GraphBuilder,
  dims: readonly number[],
  values: readonly number[],
): string {
  return graph.constant(graph.inputs[0]!.dtype!, dims, values);
}

export function scalar(graph: GraphBuilder, value: number): string {
  return constant(graph, [], [value]);
}

export const int = (value: number) => ({ int: value });
export const ints = (...values: number[]) => ({ ints: values });
export const float = (value: number) => ({ float: value });
export const text = (value: string) => ({ text: value });
