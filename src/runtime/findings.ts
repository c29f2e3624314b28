/** Judges the runs of a comparison: differences against rounding, and against the change by the adapters. */
import { OnnxLoraError } from '../errors.js';
import { Differences, type OutputDifference, type Outputs } from './difference.js';
import { type Effect, EffectSums, type FoldVerdict, judgeFold } from './effect.js';
import type { TensorValue } from './tensor-value.js';
import { type RoundingLevel, smallestStep } from './tolerance.js';
import type { Verification } from './verification.js';

/** The limit up to which a difference counts as rounding. */
export interface Rounding extends RoundingLevel {
  /** Of the greatest difference, as a share of the greatest element. */
  readonly tolerance: number;
  /** Whether somebody asked for that tolerance. */
  readonly isGiven: boolean;
}

/** The findings on one output. */
interface OutputFinding {
  readonly difference: OutputDifference;
  readonly effect: Effect | undefined;
  /** Of the nudged reference, whose differences are rounding. */
  readonly nudged: { readonly maxAbsDiff: number; readonly level: number } | undefined;
}

interface Judged extends OutputFinding {
  readonly fits: boolean;
  readonly fold: FoldVerdict | undefined;
}

// Of two runs that differ by rounding alone, the greatest difference is within a few times that of others.
const NUDGES = 8;
const STEPS = 8;

type Sums = Map<string, EffectSums>;

export class Findings {
  private readonly differences = new Differences();
  private readonly moved = new Differences();
  private readonly nudged = new Differences();
  private readonly sums: Sums = new Map();
  private readonly nudgedSums: Sums = new Map();

  /** @param bases outputs of the model without adapters */
  constructor(
    private readonly names: readonly string[],
    private readonly expected: readonly Outputs[],
    private readonly bases: readonly Outputs[] | undefined,
  ) {
    for (const [i, outputs] of expected.entries()) {
      for (const name of names) {
        const base = this.baseOf(name, i);
        if (base) this.moved.add(name, outputs.get(name)!, base);
      }
    }
  }

  /** Takes the candidate's outputs of one batch. */
  add(outputs: Outputs, batch: number): void {
    for (const name of this.names) {
      const reference = this.expected[batch]!.get(name)!;
      const candidate = counterpart(name, reference, outputs);
      this.differences.add(name, reference, candidate);
      this.addSums(this.sums, name, batch, candidate);
    }
  }

  /**
   * Runs the nudged reference where the verdict leaves a doubt that more knowledge of rounding may settle.
   * @returns whether anything is known now that was not before
   */
  async addNudged(
    { passed }: Verification,
    { inSteps }: Rounding,
    run: () => Promise<readonly Outputs[] | undefined>,
  ): Promise<boolean> {
    if (passed && !inSteps) return false;
    const all = await run();
    for (const [i, outputs] of (all ?? []).entries()) {
      for (const name of this.names) {
        const reference = this.expected[i]!.get(name)!;
        const other = counterpart(name, reference, outputs);
        this.nudged.add(name, reference, other);
        this.addSums(this.nudgedSums, name, i, other);
      }
    }
    return all !== undefined;
  }

  /** The verdict on everything that was taken. */
  verdict(rounding: Rounding): Verification {
    const judged = this.outputs().map((output) => this.judge(output, rounding));
    const [worst] = judged.sort((a, b) => badness(b) - badness(a));
    const passed = judged.length > 0 && judged.every(isGood);
    const proven = passed && judged.some(({ fold }) => fold === 'folded');
    const reason = reasonFor(worst, passed, proven, this.bases !== undefined);
    return {
      samples: this.expected.length,
      ...greatest(judged.map(({ difference }) => difference)),
      tolerance: rounding.tolerance,
      passed,
      ...(worst ? { output: worst.difference.name } : {}),
      ...(this.bases ? { moved: greatest(this.moved.outputs), proven } : {}),
      ...(reason === undefined ? {} : { reason }),
    };
  }

  private outputs(): OutputFinding[] {
    const nudged = new Map(this.nudged.outputs.map((one) => [one.name, one.maxAbsDiff]));
    return this.differences.outputs.map((difference) => {
      const { name } = difference;
      const maxAbsDiff = nudged.get(name);
      const level = this.nudgedSums.get(name)?.effect.error ?? 0;
      return {
        difference,
        effect: this.sums.get(name)?.effect,
        nudged: maxAbsDiff === undefined ? undefined : { maxAbsDiff, level },
      };
    });
  }

  private judge(output: OutputFinding, rounding: Rounding): Judged {
    const { difference, effect, nudged } = output;
    const { tolerance, isGiven } = rounding;
    const step = smallestStep(this.expected[0]!.get(difference.name)!.dtype);
    const limit = tolerance * difference.magnitude + (tolerance > 0 ? STEPS * step : 0);
    const byRounding = isGiven ? 0 : NUDGES * (nudged?.maxAbsDiff ?? 0);
    const fits = difference.maxAbsDiff <= Math.max(limit, byRounding);
    if (!effect) return { ...output, fits, fold: undefined };
    const level = Math.max(
      rounding.level,
      nudged?.level ?? 0,
      effect.size > 0 ? step / effect.size : 0,
    );
    return { ...output, fits, fold: judgeFold(effect, level) };
  }

  private baseOf(name: string, batch: number): TensorValue | undefined {
    const base = this.bases?.[batch]?.get(name);
    const reference = this.expected[batch]!.get(name)!;
    return base?.dims.join() === reference.dims.join() ? base : undefined;
  }

  private addSums(all: Sums, name: string, batch: number, other: TensorValue): void {
    const base = this.baseOf(name, batch);
    if (!base) return;
    const sums = all.get(name) ?? new EffectSums(this.unitOf(name));
    all.set(name, sums);
    sums.add(base, this.expected[batch]!.get(name)!, other);
  }

  private unitOf(name: string): number {
    const { magnitude, maxAbsDiff } = this.moved.outputs.find((one) => one.name === name)!;
    return magnitude || (Number.isFinite(maxAbsDiff) && maxAbsDiff) || 1;
  }
}

function isGood({ fits, fold }: Judged): boolean {
  return fits && fold !== 'missing';
}

/** Orders outputs by how bad they are, whatever they are measured in. */
function badness(judged: Judged): number {
  const { maxAbsDiff, magnitude } = judged.difference;
  const share = maxAbsDiff === 0 ? 0 : maxAbsDiff / magnitude;
  return isGood(judged) ? share / (1 + share) : 2 + share;
}

function greatest(outputs: readonly OutputDifference[]) {
  const relative = ({ maxAbsDiff, magnitude }: OutputDifference) => maxAbsDiff / (magnitude || 1);
  return {
    maxAbsDiff: Math.max(0, ...outputs.map(({ maxAbsDiff }) => maxAbsDiff)),
    maxRelDiff: Math.max(0, ...outputs.map(relative)),
  };
}

function reasonFor(
  worst: Judged | undefined,
  passed: boolean,
  proven: boolean,
  hasBase: boolean,
): string | undefined {
  if (!worst || (!hasBase && passed) || proven) return undefined;
  const { difference, effect, fold } = worst;
  if (passed && !effect) return 'the model without adapters has no such outputs';
  if (passed && effect!.moved === 0) return 'the adapters move nothing on these samples';
  if (passed) return 'what the adapters move on these samples is not told from rounding';
  if (fold !== 'missing') return undefined;
  const share = (effect!.error / effect!.moved).toPrecision(2);
  return `${difference.name} is off by ${share} of what the adapters move`;
}

function counterpart(name: string, expected: TensorValue, outputs: Outputs): TensorValue {
  const found = outputs.get(name);
  if (!found) throw incomparable(`the second one has no output ${name}`);
  if (found.dims.join() === expected.dims.join()) return found;
  throw incomparable(
    `output ${name} has shape [${expected.dims.join(', ')}] in the first, [${found.dims.join(', ')}] in the second`,
  );
}

function incomparable(problem: string): OnnxLoraError {
  return new OnnxLoraError('verification', `the models cannot be compared: ${problem}`, {
    hint: 'Are these two versions of the same model?',
  });
}
