/** Texts that end an answer. */

/** Lets text through until one of the stop strings comes, and holds back what might become one. */
export class StopStrings {
  private held = '';
  private isFound = false;

  constructor(private readonly stops: readonly string[]) {}

  /** Whether a stop string has come. */
  get stopped(): boolean {
    return this.isFound;
  }

  /** The text that is certainly not part of a stop string. */
  push(piece: string): string {
    if (this.isFound) return '';
    const text = this.held + piece;
    const found = this.stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.isFound = true;
      this.held = '';
      return text.slice(0, Math.min(...found));
    }
    const kept = Math.max(0, ...this.stops.map((stop) => overlap(text, stop)));
    this.held = text.slice(text.length - kept);
    return text.slice(0, text.length - kept);
  }

  /** The text that was held back and did not become a stop string. */
  end(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }
}

/** Number of characters at the end of the text that begin the stop string. */
function overlap(text: string, stop: string): number {
  let length = Math.min(text.length, stop.length - 1);
  while (length > 0 && !text.endsWith(stop.slice(0, length))) length--;
  return length;
}
