/** JSON of files that are not trusted: nested no deeper than the reader allows, and no key twice. */

/** Names and values come from the file, and an error is one line. */
const MAX_SHOWN_CHARACTERS = 80;

/** A value for an error message, cut where it is long. */
export function show(value: unknown): string {
  const text = written(value);
  return text.length > MAX_SHOWN_CHARACTERS ? `${text.slice(0, MAX_SHOWN_CHARACTERS)}…` : text;
}

function written(value: unknown): string {
  try {
    return JSON.stringify(value) ?? 'nothing';
  } catch {
    return 'a value that is nested too deep';
  }
}

/** The fault of a text that should be JSON, without its subject: `is not valid JSON`. */
export class JsonProblem extends Error {}

/**
 * As `JSON.parse`, which silently keeps the last of several values, so that two readers may see
 * different things.
 * @throws JsonProblem
 */
export function parseStrictJson(text: string, maxDepth: number): unknown {
  refuseDuplicateKeys(text, maxDepth);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new JsonProblem('is not valid JSON', { cause: error });
  }
}

/** Relies on `JSON.parse` to refuse what is not JSON at all. */
function refuseDuplicateKeys(text: string, maxDepth: number): void {
  const open: (Set<string> | undefined)[] = [];
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '{' || character === '[') {
      if (open.length === maxDepth) {
        throw new JsonProblem(`is nested more than ${maxDepth} levels deep`);
      }
      open.push(character === '{' ? new Set() : undefined);
    } else if (character === '}' || character === ']') {
      open.pop();
    } else if (character === '"') {
      const end = endOfString(text, i);
      const keys = open.at(-1);
      if (keys && isKey(text, end)) addKey(keys, text.slice(i, end));
      i = end - 1;
    }
  }
}

function addKey(keys: Set<string>, quoted: string): void {
  let key: string;
  try {
    key = JSON.parse(quoted);
  } catch (error) {
    throw new JsonProblem('is not valid JSON', { cause: error });
  }
  if (keys.has(key)) throw new JsonProblem(`has the key ${show(key)} twice`);
  keys.add(key);
}

function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text[i] !== '"') i += text[i] === '\\' ? 2 : 1;
  return i + 1;
}

function isKey(text: string, end: number): boolean {
  const colon = /[ \t\r\n]*:/y;
  colon.lastIndex = end;
  return colon.test(text);
}
