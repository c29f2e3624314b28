/** Tokens as text while they come. */

/** Turns numbers of tokens into text. */
export interface Decoder {
  decode(ids: readonly number[]): string;
}

/** Tokens before the new ones that decoders look at: whether a word begins, whether a text does. */
const CONTEXT = 8;

/** Decoding starts anew after this many tokens, or a long text would take its length squared. */
const WINDOW = 64;

/** The sign that a decoder writes for bytes that are not a character (yet); one takes up to four. */
const UNFINISHED = /\uFFFD{1,3}$/;

/**
 * The text of tokens in pieces. Only whole characters come out: bytes of one may be spread over
 * several tokens.
 */
export class TextStream {
  private window: number[];
  /** Length of the window's text that was there before, or came out already. */
  private told: number;

  /** @param before the tokens that the text continues */
  constructor(
    private readonly decoder: Decoder,
    before: readonly number[] = [],
  ) {
    this.window = before.slice(-CONTEXT);
    this.told = decoder.decode(this.window).length;
  }

  /** The text that the token makes certain; may be empty. */
  push(id: number): string {
    this.window.push(id);
    const text = this.decoder.decode(this.window);
    const end = text.length - (UNFINISHED.exec(text)?.[0].length ?? 0);
    const piece = text.slice(this.told, end);
    this.told = Math.max(this.told, end);
    if (this.window.length > WINDOW && end === text.length) this.restart();
    return piece;
  }

  /** The rest: characters that never came to their end. */
  end(): string {
    const rest = this.decoder.decode(this.window).slice(this.told);
    this.told += rest.length;
    return rest;
  }

  private restart(): void {
    this.window = this.window.slice(-CONTEXT);
    this.told = this.decoder.decode(this.window).length;
  }
}
