/**
 * Templates as Python's Jinja runs them, where the library in JavaScript is silently more generous: it
 * joins a text with a list, an object or a number, and writes JSON for what Python writes otherwise. What
 * a model learns must be what its template gives it later.
 */
import { Interpreter, Template } from '@huggingface/jinja';

export { Template };

interface RuntimeValue {
  readonly type: string;
  readonly value: unknown;
}

interface Node {
  readonly type: string;
}

interface Binary extends Node {
  readonly operator: { readonly value: string };
  readonly left: Node;
  readonly right: Node;
}

/** The private part of the interpreter that is used here. */
interface Inside {
  evaluate(node: Node, scope: unknown): RuntimeValue;
  evaluateBlock(nodes: readonly Node[], scope: unknown): RuntimeValue;
  evaluateBinaryExpression(node: Binary, scope: unknown): RuntimeValue;
}

const STRING = 'StringValue';

/** Values that Python writes in another form: None, True, ['a'], {'a': 1}. */
const NAMES: Readonly<Record<string, string>> = {
  NullValue: 'none',
  BooleanValue: 'true or false',
  ArrayValue: 'a list',
  TupleValue: 'a list',
  ObjectValue: 'an object',
};

/** Nodes that write what is in them, if anything. */
const STATEMENTS = new Set(
  ['Program', 'If', 'For', 'Break', 'Continue', 'Set', 'Macro', 'Comment'].concat(
    ...['FilterStatement', 'CallStatement'],
  ),
);

/** A node that has its value. */
interface Evaluated extends Node {
  readonly type: 'Evaluated';
  readonly value: RuntimeValue;
}

/** An expression whose value is written. */
interface Written extends Node {
  readonly type: 'Written';
  readonly node: Node;
}

const inside = Interpreter.prototype as unknown as Inside;
const { evaluate, evaluateBlock, evaluateBinaryExpression } = inside;
for (const method of [evaluate, evaluateBlock, evaluateBinaryExpression]) {
  if (typeof method !== 'function') throw new Error('@huggingface/jinja is not built as expected');
}

inside.evaluate = function (this: Inside, node, scope) {
  if (isEvaluated(node)) return node.value;
  if (!isWritten(node)) return evaluate.call(this, node, scope);
  const value = evaluate.call(this, node.node, scope);
  const name = NAMES[value.type];
  if (name === undefined) return value;
  throw new Error(`it writes ${name} as text, which Python writes in another form`);
};

inside.evaluateBlock = function (this: Inside, nodes, scope) {
  const written = nodes.map((node) =>
    STATEMENTS.has(node.type) ? node : ({ type: 'Written', node } satisfies Written),
  );
  return evaluateBlock.call(this, written, scope);
};

inside.evaluateBinaryExpression = function (this: Inside, node, scope) {
  const operator = node.operator.value;
  if (operator !== '+' && operator !== '~') return evaluateBinaryExpression.call(this, node, scope);
  const [left, right] = [this.evaluate(node.left, scope), this.evaluate(node.right, scope)];
  checkJoined(operator, left, right);
  // Each side once: chains of sums would otherwise take twice as long with every link.
  const done = { ...node, left: evaluated(left), right: evaluated(right) };
  return evaluateBinaryExpression.call(this, done, scope);
};

function checkJoined(operator: string, left: RuntimeValue, right: RuntimeValue): void {
  const other = [left, right].find(({ type }) => type !== STRING);
  const isText = left.type === STRING || right.type === STRING;
  if (!other || !isText) return;
  const isRefused = operator === '+' || NAMES[other.type] !== undefined;
  if (!isRefused || other.type === 'UndefinedValue') return;
  const name = NAMES[other.type] ?? `the number ${other.value}`;
  throw new Error(`it joins a text with ${name}, which is an error in Python`);
}

function evaluated(value: RuntimeValue): Evaluated {
  return { type: 'Evaluated', value };
}

function isEvaluated(node: Node): node is Evaluated {
  return node?.type === 'Evaluated';
}

function isWritten(node: Node): node is Written {
  return node?.type === 'Written';
}
