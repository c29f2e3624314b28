/** Whether a tokenizer has tokens for every text, which spares a look at all texts beforehand. */

/** @param tokenizer its file @param has whether a token is one of its own */
export function coversAllTexts(
  { normalizer, pre_tokenizer }: { normalizer?: unknown; pre_tokenizer?: unknown },
  has: (token: string) => boolean,
): boolean {
  const isByteLevel = JSON.stringify([normalizer, pre_tokenizer]).includes('"ByteLevel"');
  return (isByteLevel && byteCharacters().every(has)) || bytes.map(fallback).every(has);
}

const bytes = Array.from({ length: 256 }, (_, byte) => byte);

/** `<0x0A>`, a token for a byte of what has no other. */
function fallback(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

/** The characters that stand for bytes in GPT-2 and all after it: the byte itself where it can be seen. */
function byteCharacters(): string[] {
  const isSeen = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  let others = 256;
  return bytes.map((byte) => String.fromCodePoint(isSeen(byte) ? byte : others++));
}
