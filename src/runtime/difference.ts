/** Differences between the outputs of two models. */
import { isFloating } from '../onnx/dtype.js';
import { Magnitude } from './magnitude.js';
import { type TensorValue, tensorToFloat64 } from './tensor-value.js';

/** The outputs of one run, by name. */
export type Outputs = ReadonlyMap<string, TensorValue>;

/** The differences of one output after some runs. */
export interface OutputDifference {
  readonly name: string;
  /** Greatest |candidate - reference|; infinite where one of them is NaN alone. */
  readonly maxAbsDiff: number;
  /** Greatest finite |reference|, see {@link Magnitude}. */
  readonly magnitude: number;
}

/** Collects the differences of several runs. */
export class Differences {
  private readonly found = new Map<string, { maxAbsDiff: number; magnitude: Magnitude }>();

  /** Adds one output of one run. The tensors have the same shape. */
  add(name: string, reference: TensorValue, candidate: TensorValue): void {
    const [a, b] = [tensorToFloat64(reference), tensorToFloat64(candidate)];
    const sofar = this.found.get(name) ?? { maxAbsDiff: 0, magnitude: new Magnitude() };
    for (let i = 0; i < a.length; i++) {
      const difference = distance(a[i]!, b[i]!);
      sofar.maxAbsDiff = Math.max(sofar.maxAbsDiff, difference);
      sofar.magnitude.add(a[i]!, difference === 0);
    }
    this.found.set(name, sofar);
  }

  /** One entry an output. */
  get outputs(): OutputDifference[] {
    return [...this.found].map(([name, { maxAbsDiff, magnitude }]) => {
      return { name, maxAbsDiff, magnitude: magnitude.value };
    });
  }
}

/** |a - b|. Infinities of one sign are equal, and so are NaN and NaN; NaN alone is infinitely far. */
export function distance(a: number, b: number): number {
  if (Object.is(a, b) || a === b) return 0;
  const difference = Math.abs(a - b);
  return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
}

/** Names of the outputs to compare: the floats, or all where there are none. */
export function comparedOutputs(outputs: Outputs): string[] {
  const names = [...outputs.keys()];
  const floats = names.filter((name) => isFloating(outputs.get(name)!.dtype));
  return floats.length > 0 ? floats : names;
}
