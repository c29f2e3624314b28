/** Choices as the options of `patch` that make them. */

import type { Layer } from '../../adapters/model/layers.js';
import type { StructureName } from '../../adapters/structure/structure.js';
import { matcher, type Selection } from '../../adapters/targets/select.js';
import type { Grid } from '../fit/candidates.js';

/** The adapter that a layer gets; rank 0 for none. */
export interface LayerChoice extends Grid {
  readonly layer: Layer;
  readonly rank: number;
}

/** Options of `patch` that follow from the advice. */
export interface PatchAdvice extends Selection {
  /** Of most layers. */
  readonly structure: StructureName;
  /** K, of most layers; absent for `global`. */
  readonly blocks?: number;
  /** R, of most layers. */
  readonly rank: number;
  /** Other structures, as `PATTERN=STRUCTURE[:K]`. */
  readonly structurePattern?: readonly string[];
  /** Other ranks, as `PATTERN=RANK`. */
  readonly rankPattern?: readonly string[];
}

/**
 * The options for `patch`.
 * @param all every layer of the selection: patterns match no other of them than they are meant for
 * @param selection what the layers were chosen by; kept
 */
export function patchOptions(
  all: readonly Layer[],
  choices: readonly LayerChoice[],
  overall: Grid & { readonly rank: number },
  selection: Selection,
): PatchAdvice {
  const structureOf = ({ structure, blocks }: Grid) =>
    structure === 'global' ? structure : `${structure}:${blocks}`;
  const byLayer = new Map(choices.map((choice) => [choice.layer, choice]));
  const patterns = (textOf: (choice: Grid & { readonly rank: number }) => string) =>
    patternsFor(all, (layer) => textOf(byLayer.get(layer) ?? overall), textOf(overall));
  const structurePattern = patterns((choice) => (choice.rank > 0 ? structureOf(choice) : ''));
  const rankPattern = patterns(({ rank }) => (rank > 0 ? String(rank) : ''));
  const left = choices.filter(({ rank }) => rank === 0).map(({ layer }) => layer);
  const exclude = left.map((layer) => patternOf(layer, all));
  return {
    ...kept(selection, exclude),
    structure: overall.structure,
    ...(overall.structure === 'global' ? {} : { blocks: overall.blocks }),
    rank: overall.rank,
    ...(structurePattern.length > 0 ? { structurePattern } : {}),
    ...(rankPattern.length > 0 ? { rankPattern } : {}),
  };
}

function kept({ targets, exclude = [], layers }: Selection, more: readonly string[]): Selection {
  const without = [...exclude, ...more];
  return {
    ...(targets ? { targets } : {}),
    ...(without.length > 0 ? { exclude: without } : {}),
    ...(layers === undefined ? {} : { layers }),
  };
}

/**
 * `PATTERN=TEXT` for the layers whose text is another than the usual one. A suffix of the path stands
 * for all layers that have it, where they have the same text.
 */
function patternsFor(
  all: readonly Layer[],
  textOf: (layer: Layer) => string,
  usual: string,
): string[] {
  const patterns = new Set<string>();
  for (const layer of all) {
    const text = textOf(layer);
    if (text === usual || text === '') continue;
    const fits = (other: Layer) => textOf(other) === text;
    patterns.add(`${suffixOf(layer, all, fits) ?? patternOf(layer, all)}=${text}`);
  }
  return [...patterns];
}

/** The shortest suffix of the path that matches only layers that fit. */
function suffixOf(
  { module }: Layer,
  all: readonly Layer[],
  fits: (layer: Layer) => boolean,
): string | undefined {
  const segments = module.split('.');
  const suffixes = segments.map((_, i) => segments.slice(segments.length - 1 - i).join('.'));
  return suffixes.filter(isPlain).find((suffix) => all.filter(matcher(suffix)).every(fits));
}

/** Texts that would be read as something else than a path. */
function isPlain(pattern: string): boolean {
  return !/^(re:|glob:|all$|all-linear$)/.test(pattern) && pattern !== '';
}

/** A pattern that matches the layer and no other: its path, its node, or its path as a whole. */
function patternOf(layer: Layer, all: readonly Layer[]): string {
  const exactly = `re:${layer.module.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}`;
  const candidates = [...[layer.module, ...layer.nodeNames].filter(isPlain), exactly];
  const isOwn = (pattern: string) => all.filter(matcher(pattern)).length === 1;
  return candidates.find(isOwn) ?? exactly;
}
