/** Weights of a folded model that were stored with fewer bits, and what reading them back shows. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import { temporaryFolder } from '../onnx/temporary.js';
import type { WorkOptions } from '../onnx/write.js';
import type { Verification } from '../runtime/verification.js';
import type { VerifyOptions } from './options/check.js';
import { verifyOn } from './verify.js';

/** A weight that was rounded. */
export interface QuantizedWeight {
  /** The first node that computes with it. */
  readonly node: string;
  /** Name of the tensor that it was. */
  readonly weight: string;
  /** |Q(W) - W|, the Frobenius norm. */
  readonly error: number;
  /** |W|. */
  readonly norm: number;
}

/** With its greatest error, over what is allowed. */
export type ReadWeight = QuantizedWeight & { readonly steps: number };

/** A converted model beside the floats that it was made of. */
export interface Converted {
  /** The model of floats. */
  readonly path: string;
  /** The converted one. */
  readonly output: string;
  /** Its weights, and the unit of their errors, in words. */
  readonly words: { readonly became: string; readonly unit: string };
  /**
   * Writes the model of floats with the numbers that are read back from the converted one.
   * @returns what was read
   */
  writeReference(
    floats: OpenedModel,
    written: OpenedModel,
    reference: string,
  ): Promise<readonly ReadWeight[]>;
}

/** The weights of a converted model as they were read back, and its run beside the same numbers in floats. */
export async function checkConverted(
  { path, output, words, writeReference }: Converted,
  options: VerifyOptions & WorkOptions,
): Promise<{ readonly weights: readonly QuantizedWeight[]; readonly verification: Verification }> {
  const folder = temporaryFolder('onnx-lora-check-');
  try {
    const reference = join(folder, 'reference.onnx');
    const weights = await withModel(output, (written) =>
      withModel(path, (floats) => writeReference(floats, written, reference)),
    );
    const found = await withModel(path, ({ model }) =>
      verifyOn(model, { path: reference }, { path: output }, options),
    );
    return { weights, verification: judged(found, weights, words.became, words.unit) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The findings of runs and of weights as one. */
function judged(
  found: Verification,
  read: readonly ReadWeight[],
  became: string,
  unit: string,
): Verification {
  const wrong = read.find(({ steps }) => !(steps <= 1));
  const passed = found.passed && !wrong;
  return {
    ...found,
    passed,
    proven: passed && read.length > 0,
    weights: { count: read.length, worst: Math.max(0, ...read.map(({ steps }) => steps)) },
    ...(read.length === 0 ? { reason: `no weight of the model became ${became}` } : {}),
    ...(wrong
      ? { reason: `a number of ${wrong.weight} is ${wrong.steps.toPrecision(2)} ${unit} off` }
      : {}),
  };
}
