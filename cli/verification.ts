/** The check of a result by running models, as commands that do it show it. */
import { OnnxLoraError } from '../src/errors.js';
import type { ProviderName } from '../src/runtime/provider-names.js';
import type { Verification } from '../src/runtime/verification.js';
import type { GuardReport } from '../src/training/guard/guard.js';
import { duration, measure, plural, printable } from './text.js';
import type { Ui } from './ui.js';

/** Resolves `auto`, and prints the choice. */
export async function chosenProvider(
  requested: ProviderName | 'auto' | undefined,
  ui: Ui,
): Promise<ProviderName | undefined> {
  if (requested !== 'auto') return requested;
  const { resolveProvider } = await import('../src/runtime/providers.js');
  const { used, reason } = await resolveProvider('auto');
  ui.note(`provider auto: ${used} (${reason})`);
  return used;
}

/**
 * The numbers in one line, and what they leave open in a second one; none where nothing was checked.
 * @param stored the type of weights that were read back
 */
export function verificationLines(
  verification: Verification | undefined,
  stored = 'integers',
): string[] {
  if (!verification) return [];
  const { samples, maxAbsDiff, maxRelDiff, tolerance, moved, weights } = verification;
  const difference = `max |Δ| ${measure(maxAbsDiff)}, relative ${measure(maxRelDiff)}`;
  const effect = moved ? ` where the adapters move ${measure(moved.maxRelDiff)}` : '';
  const compared = `${plural(samples, 'sample')}${weights ? ' beside floats of the same numbers' : ''}`;
  return [
    `verification: ${readBackText(weights, stored)}${compared}, ${difference}${effect}, tolerance ${measure(tolerance)}, ${verdict(verification)}`,
    ...doubtLines(verification),
  ];
}

/** Outputs may agree for another reason than a right fold. */
function verdict({ passed, proven }: Verification): string {
  if (!passed) return 'FAILED';
  return proven === false ? 'not proven' : 'passed';
}

/** The weights that were read back, which prove the fold where rounding hides it from the outputs. */
function readBackText(weights: Verification['weights'], stored: string): string {
  if (!weights) return '';
  return `${plural(weights.count, 'weight')} in ${stored} read back, at most ${measure(weights.worst)} of the rounding allowed; `;
}

function doubtLines({ passed, proven, reason }: Verification): string[] {
  if (!passed || proven !== false) return [];
  return [`not proven: ${reason}. Other inputs may show more: --samples FILE`];
}

/** The failure of a check that was not passed. */
export function verificationFailure(
  verification: Verification | undefined,
  output: string,
  hint: string,
): OnnxLoraError | undefined {
  if (!verification || verification.passed) return undefined;
  const { maxRelDiff, tolerance, output: worst, reason } = verification;
  const where = worst === undefined ? '' : ` in ${worst}`;
  return new OnnxLoraError(
    'verification',
    `${output} does not compute what it should: relative difference ${measure(maxRelDiff)}${where}, tolerance ${measure(tolerance)}${reason === undefined ? '' : `; ${reason}`}`,
    { hint },
  );
}

/** One line of what the guard found and took; none where it was left out. */
export function guardLines(guard: GuardReport | undefined, what = ''): string[] {
  if (!guard) return [];
  const { maxRelDiff, tolerance, reason, seconds } = guard;
  const found =
    maxRelDiff === null
      ? `nothing to compare: ${printable(reason ?? '')}`
      : `relative difference ${measure(maxRelDiff)}, tolerance ${measure(tolerance)}`;
  return [`beside the file itself${what}: ${found}, in ${duration(seconds)}`];
}
