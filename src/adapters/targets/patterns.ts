/** Assignments of options to layers by pattern: `query=8`, `value=localized:4`. */
import { OnnxLoraError } from '../../errors.js';
import { type StructureOptions, structures } from '../structure/structure.js';
import type { PatternValue } from './select.js';

/**
 * `PATTERN=NUMBER`
 * @throws OnnxLoraError `invalid-argument` for another text
 */
export function numberPatterns(
  patterns: readonly string[] | undefined,
  kind: string,
): PatternValue<number>[] {
  const expected = 'PATTERN=NUMBER, for example query=8';
  return (patterns ?? []).map((text) => {
    const { pattern, value } = splitPattern(text, kind, expected);
    if (Number.isFinite(Number(value))) return { pattern, value: Number(value) };
    throw invalidPattern(text, kind, expected);
  });
}

/** A structure, on the grid of all layers where it names none. */
export type StructureChoice = Pick<StructureOptions, 'structure'> & Partial<StructureOptions>;

/**
 * `PATTERN=STRUCTURE` or `PATTERN=STRUCTURE:K`
 * @throws OnnxLoraError `invalid-argument` for another text
 */
export function structurePatterns(
  patterns: readonly string[] | undefined,
): PatternValue<StructureChoice>[] {
  const expected = `PATTERN=NAME or PATTERN=NAME:BLOCKS with ${structures.join(', ')}, for example query=localized:4`;
  return (patterns ?? []).map((text) => {
    const { pattern, value } = splitPattern(text, 'structure', expected);
    const [name, blocks, ...rest] = value.split(':');
    const structure = structures.find((one) => one === name);
    if (!structure || rest.length > 0 || (blocks !== undefined && !/^\d+$/.test(blocks))) {
      throw invalidPattern(text, 'structure', expected);
    }
    return { pattern, value: { structure, ...(blocks ? { blocks: Number(blocks) } : {}) } };
  });
}

function splitPattern(text: string, kind: string, expected: string): PatternValue<string> {
  const at = text.lastIndexOf('=');
  if (at < 1 || text.length === at + 1) throw invalidPattern(text, kind, expected);
  return { pattern: text.slice(0, at), value: text.slice(at + 1) };
}

function invalidPattern(text: string, kind: string, expected: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-argument',
    `${kind} pattern ${JSON.stringify(text)}: expected ${expected}`,
  );
}
