/** The characters that a model of text in images can write, by the numbers of its classes. */
import { readNameLines } from './name-lines.js';

const HINT = 'Write a character a line, in the order of the model’s classes without the blank.';

export class Characters {
  private readonly numbers = new Map<string, number>();
  /** Code points of the longest entry. */
  private readonly longest: number;

  /**
   * @param label what to call the dictionary in a message
   * @param blank the class that stands for no character: the others go around it
   */
  private constructor(
    private readonly label: string,
    characters: readonly string[],
    blank: number,
  ) {
    characters.forEach((character, i) => {
      this.numbers.set(character, i < blank ? i : i + 1);
    });
    this.longest = Math.max(...characters.map((character) => [...character].length));
  }

  /**
   * Reads a dictionary: a character a line, in the order of the model's classes without the blank. A
   * line may hold several code points, which are one class; a space stands for itself.
   * @throws OnnxLoraError as {@link readNameLines}
   */
  static read(path: string, blank = 0): Characters {
    const lines = readNameLines(path, HINT);
    return new Characters(path, lines, blank);
  }

  /** How many classes a model with this dictionary has, the blank included. */
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
