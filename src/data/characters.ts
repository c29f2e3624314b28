/** The characters that a model of text in images can write, by the numbers of its classes. */
import { OnnxLoraError } from '../errors.js';
import { DEFAULT_BLANK } from './blank.js';
import { readNameLines } from './name-lines.js';

const HINT = 'Write a character a line, in the order of the model’s classes without the blank.';

/** Of a letter with all its marks; texts are compared with entries of every length up to the longest. */
const MAX_ENTRY = 64;

export class Characters {
  private readonly numbers = new Map<string, number>();
  /** Code points of the longest entry. */
  private readonly longest: number;

  /**
   * @param label what to call the dictionary in a message
   * @param blank the class for no character: the others go around it
   */
  private constructor(
    private readonly label: string,
    characters: readonly string[],
    blank: number,
  ) {
    characters.forEach((character, i) => {
      this.numbers.set(character, i < blank ? i : i + 1);
    });
    this.longest = characters.reduce((most, one) => Math.max(most, [...one].length), 0);
  }

  /**
   * Reads a dictionary: a character a line, in the order of the model's classes without the blank. A
   * line may hold several code points, which are one class; a space is itself.
   * @throws OnnxLoraError as {@link readNameLines}, and `invalid-data` for a line that is not a character
   */
  static read(path: string, blank = DEFAULT_BLANK): Characters {
    const lines = readNameLines(path, HINT);
    const long = lines.findIndex((line) => line.length > MAX_ENTRY);
    if (long < 0) return new Characters(path, lines, blank);
    throw new OnnxLoraError(
      'invalid-data',
      `${path}:${long + 1}: the line has ${lines[long]!.length} characters, expected at most ${MAX_ENTRY}`,
      { hint: HINT },
    );
  }

  /** Number of classes of a model with this dictionary, the blank included. */
  get classes(): number {
    return this.numbers.size + 1;
  }

  /**
   * The classes of a text's characters; where entries overlap, the longest counts.
   * @returns `unknown` where the dictionary lacks a character
   */
  encode(text: string): number[] | { readonly unknown: string; readonly dictionary: string } {
    const points = [...text];
    const numbers: number[] = [];
    for (let at = 0; at < points.length; ) {
      const length = this.entryAt(points, at);
      if (length === 0) return { unknown: points[at]!, dictionary: this.label };
      numbers.push(this.numbers.get(points.slice(at, at + length).join(''))!);
      at += length;
    }
    return numbers;
  }

  private entryAt(points: readonly string[], at: number): number {
    for (let length = this.longest; length > 0; length--) {
      if (this.numbers.has(points.slice(at, at + length).join(''))) return length;
    }
    return 0;
  }
}
