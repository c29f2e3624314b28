/** The output that a loss looks at where nobody says one. */

/** Outputs of decoders beside their logits, for the next token. */
const CACHE =
  /^(?:present|past|new_past|updated_past)(?:[._\d]|_?key|$)|(?:^|[._])(?:kv_?)?cache(?:[._\d]|$)|key_values/i;

/** The only output that is not a cache, or the one called `logits`; undefined where there are several others, or none. */
export function defaultOutput(outputs: readonly string[]): string | undefined {
  const others = outputs.filter((name) => !CACHE.test(name));
  if (others.includes('logits')) return 'logits';
  return others.length === 1 ? others[0] : outputs.length === 1 ? outputs[0] : undefined;
}
