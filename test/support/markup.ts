/** Names of elements that are opened and not closed, or closed and not open. */
export function unbalanced(svg: string): string[] {
  const open: string[] = [];
  for (const [, end, name, empty] of svg.matchAll(
    /<(\/?)([a-z]+)(?: [a-zA-Z:-]+="[^"<&]*")*(\/?)>/g,
  )) {
    if (end !== '') {
      if (open.pop() !== name) return [`/${name}`];
    } else if (empty === '') open.push(name!);
  }
  return open;
}
