/** Einsum with any number of operands. */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';

/**
 * The gradient of an operand is the sum of products of dY and the other operands: the operand and the
 * output change places in the equation. An index that is in the operand alone was summed over, and
 * is stretched again.
 */
export const einsum: GradientRule = (context) => {
  const { x, dy, c } = context;
  const { terms, output } = equationOf(context);
  return x.map((operand, i) => () => {
    const others = x.filter((_, k) => k !== i);
    const given = [output, ...terms.filter((_, k) => k !== i)];
    const found = [...terms[i]!].filter((index) => given.some((term) => term.includes(index)));
    const equation = `${given.join(',')}->${found.join('')}`;
    const { dtype } = c.type(operand);
    const type = { dtype, shape: found.map((index) => sizeOf(c, x, terms, index)) };
    const sum = c.op('Einsum', [dy[0]!, ...others], type, { equation: { text: equation } });
    const missing = [...terms[i]!].flatMap((index, axis) => (found.includes(index) ? [] : [axis]));
    const whole = c.unsqueeze(sum, missing);
    if (missing.length === 0) return c.sumTo(whole, operand);
    // An operand of size 1 along an index was broadcast.
    const ones = c.axes(operand).filter((axis) => c.dims(operand)[axis] === 1);
    return c.expandLike(ones.length > 0 ? c.reduceSum(whole, ones) : whole, operand);
  });
};

interface Equation {
  readonly terms: readonly string[];
  readonly output: string;
}

/** The equation in its explicit form, an ellipsis as letters of its own. */
function equationOf({ x, c, text }: RuleContext): Equation {
  const [left, right] = text('equation', '').replaceAll(' ', '').split('->');
  const unused = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ'].filter((letter) => !left!.includes(letter));
  const terms = left!.split(',').map((term, i) => {
    const count = c.rank(x[i]!) - term.replace('...', '').length;
    return term.replace('...', unused.slice(0, count).reverse().join(''));
  });
  const repeated = terms.find((term) => new Set(term).size < term.length);
  if (repeated)
    throw new Refusal(`the index that repeats in ${repeated} (a diagonal) is not supported`);
  const longest = Math.max(...left!.split(',').map((term, i) => ellipsisRank(c, x[i]!, term)));
  const dots = unused.slice(0, longest).reverse().join('');
  return { terms, output: right?.replace('...', dots) ?? implicitOutput(terms, dots) };
}

/** The axes that an ellipsis stands for, which align at the last. */
function ellipsisRank(c: OpBuilder, value: string, term: string): number {
  return term.includes('...') ? c.rank(value) - term.length + 3 : 0;
}

/** The ellipsis, then the letters that occur once, in order. */
function implicitOutput(terms: readonly string[], dots: string): string {
  const all = terms.join('');
  const once = [...new Set(all)].filter(
    (letter) => !dots.includes(letter) && all.split(letter).length === 2,
  );
  return dots + once.sort().join('');
}

function sizeOf(c: OpBuilder, x: readonly string[], terms: readonly string[], index: string) {
  const sizes = terms.flatMap((term, k) => {
    const axis = term.indexOf(index);
    return axis < 0 ? [] : [c.dims(x[k]!)[axis]!];
  });
  return sizes.find((size) => size !== 1) ?? 1;
}
