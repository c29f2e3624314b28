/** Names of classes as they are met in rows. */
import { distance } from 'fastest-levenshtein';
import { OnnxLoraError } from '../../errors.js';
import { classList, sortedClasses } from '../classes.js';
import { BadRow } from './bad-row.js';

/** A field with more names does not hold classes. */
const MOST = 10_000;

/** Collects names, or checks them where they are known. */
export class ClassNames {
  private readonly found: Set<string>;

  constructor(private readonly known: readonly string[] | undefined) {
    this.found = new Set(known);
  }

  /** @throws BadRow for a name that is not known; OnnxLoraError where there are too many */
  note(name: string): void {
    if (this.found.has(name)) return;
    if (this.known) throw unknown(name, this.known);
    this.found.add(name);
    if (this.found.size <= MOST) return;
    throw new OnnxLoraError(
      'invalid-data',
      `the labels have more than ${MOST} different values, as ${JSON.stringify(name.slice(0, 40))}`,
      { hint: 'Is it the right field? Name it with `labelField`.' },
    );
  }

  /** In the order of their numbers. */
  get names(): readonly string[] {
    return this.known ?? sortedClasses(this.found);
  }
}

function unknown(name: string, known: readonly string[]): BadRow {
  const near = known.find((other) => distance(name, other) <= Math.ceil(other.length / 4));
  const meant = near === undefined ? '' : ` Is it ${near}?`;
  return new BadRow(
    `its label is ${JSON.stringify(name.slice(0, 40))}, expected one of ${classList(known)}`,
    `The classes are those of \`labels\`, of the model, or of the data it trains on.${meant}`,
  );
}
