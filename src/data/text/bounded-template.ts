/** Chat templates are programs from the files of a model: they run for so long, and make so much, no more. */
import * as jinja from '@huggingface/jinja';
import { withinTime } from '../../time-limit.js';
import { Template } from './strict-jinja.js';

/** Templates of models have some ten kilobytes. */
export const MAX_TEMPLATE_CHARACTERS = 2 ** 20;

/** For one conversation, which takes one or two. */
const RENDER_MS = 2000;

/**
 * Steps of one conversation: parts of the template that are evaluated, and characters that are made by 16.
 * A conversation of a thousand messages takes a million; each step may hold on to a kilobyte.
 */
const MAX_STEPS = 5_000_000;
const CHARACTERS_A_STEP = 16;

/** Numbers of a range at a time. Templates count messages. */
const MAX_RANGE = 100_000;

/** A template did more than any conversation needs. */
export class TemplateLimit extends Error {}

interface Value {
  readonly value: unknown;
}

/** The used part of the package's interpreter: its own types name files that are not there. */
interface Runtime {
  readonly Environment: new () => { set(name: string, value: unknown): unknown };
  readonly Interpreter: new (
    environment: object,
  ) => {
    evaluate(statement: { readonly type: string } | undefined, environment: object): Value;
    run(program: object): Value;
  };
}

const { Environment, Interpreter } = jinja as unknown as Runtime;

class BoundedInterpreter extends Interpreter {
  private steps = 0;

  override evaluate(statement: { readonly type: string } | undefined, environment: object): Value {
    const value = super.evaluate(statement, environment);
    const { value: made } = value;
    const isMade = statement !== undefined && statement.type !== 'Identifier';
    const size = isMade && typeof made === 'string' ? made.length / CHARACTERS_A_STEP : 0;
    this.steps += 1 + size + (isMade && Array.isArray(made) ? made.length : 0);
    if (this.steps <= MAX_STEPS) return value;
    throw new TemplateLimit(`it takes more than ${MAX_STEPS} steps for one conversation`);
  }
}

/** @throws Error for a text that is not a template, TemplateLimit, TimeLimit */
export function parseTemplate(source: string): Template {
  if (source.length > MAX_TEMPLATE_CHARACTERS) {
    throw new TemplateLimit(`it has more than ${MAX_TEMPLATE_CHARACTERS} characters`);
  }
  return withinTime(RENDER_MS, () => new Template(source));
}

/**
 * The text that the template writes.
 * @throws TemplateLimit, TimeLimit, and Error where the template takes no such values
 */
export function render(template: Template, values: Readonly<Record<string, unknown>>): string {
  return withinTime(RENDER_MS, () => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals, ...values })) {
      environment.set(name, value);
    }
    return String(new BoundedInterpreter(environment).run(template.parsed).value);
  });
}

/** As in the package, but for a clock and for ranges of any length. */
const globals = {
  ...{ false: false, true: true, none: null, False: false, True: true, None: null },
  raise_exception(message: string) {
    throw new Error(message);
  },
  range(...bounds: readonly unknown[]): number[] {
    const numbers = bounds.filter((one): one is number => typeof one === 'number');
    const [start, end, step = 1] = numbers.length === 1 ? [0, numbers[0]!] : numbers;
    if (start === undefined || end === undefined || step === 0) {
      throw new Error('range takes one to three numbers, and steps that are not 0');
    }
    const count = Math.max(0, Math.ceil((end - start) / step));
    if (count <= MAX_RANGE) return Array.from({ length: count }, (_, i) => start + i * step);
    throw new TemplateLimit(`it counts to more than ${MAX_RANGE}`);
  },
};
