/**
 * Numbers of tokens of two texts that are kept so that they fit together: all, or else the longer text loses
 * until both have half, as `longest_first` of Hugging Face's tokenizers.
 * @param room for both
 */
export function longestFirst(first: number, second: number, room: number): [number, number] {
  if (first + second <= room) return [first, second];
  const shorter = Math.min(first, second, Math.floor(room / 2));
  return first <= second ? [shorter, room - shorter] : [room - shorter, shorter];
}
