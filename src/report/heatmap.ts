/** Maps of |ΔW[n, j]|, one an adapter, on one scale: where the adapters learned. */

import type { AdapterSummary } from '../adapters/kinds/summary.js';
import { formatNorm, pathOf } from './format.js';
import type { BlockNorms, InspectedTarget, InspectResult } from './inspection.js';
import { type Markup, markup } from './markup.js';

/** An adapter with the first layer that carries it. */
interface Tile {
  readonly adapter: AdapterSummary;
  readonly target: InspectedTarget;
}

interface Group {
  readonly set: string;
  readonly title: string;
  readonly tiles: Tile[];
}

/** The section with the maps; nothing for a model without adapters. */
export function heatmaps(result: InspectResult, blocks: BlockNorms): Markup | undefined {
  const tiles = tilesOf(result.targets);
  if (tiles.length === 0) return undefined;
  const drawn = tiles.filter(({ adapter }) => blocks.has(adapter) && Number.isFinite(adapter.norm));
  const norms = drawn.flatMap(({ adapter }) => blocks.get(adapter)!);
  const peak = norms.reduce((max, row) => row.reduce((a, b) => Math.max(a, b), max), 0);
  const groups = result.sets.flatMap(({ name }) =>
    grouped(drawn.filter(({ adapter }) => adapter.set === name)),
  );
  const head: Heading = {
    sets: result.sets.length > 1,
    none: result.sets.length < 2 && groups.every(({ title }) => title === ''),
  };
  return markup`<section class="learned">
<div class="head"><div><h2>Where the adapters learned</h2>${peak > 0 && introduction}</div>
${peak > 0 && legend(peak)}</div>
<div class="maps">${groups.map((group) => groupOf(group, blocks, peak, head))}${notesOn(tiles, blocks)}</div>
</section>`;
}

/** The column beside the groups: the sets' names, or none at all. */
interface Heading {
  readonly sets: boolean;
  readonly none: boolean;
}

const introduction = markup`<p class="intro">The size of each block of the change ΔW. A row is a block of input features n, a column a block of output features j; all layers share one scale. Under each map: ‖ΔW‖ of the whole layer.</p>`;

function tilesOf(targets: readonly InspectedTarget[]): Tile[] {
  const seen = new Set<AdapterSummary>();
  const tiles: Tile[] = [];
  for (const target of targets) {
    for (const adapter of target.adapters) {
      if (!seen.has(adapter)) tiles.push({ adapter, target });
      seen.add(adapter);
    }
  }
  return tiles;
}

// Path segments up to the first number: `encoder.layer.3` holds everything below it.
const BLOCK = /^(.*?\.\d+)\.(.+)$/;

function grouped(tiles: readonly Tile[]): Group[] {
  const groups: Group[] = [];
  for (const tile of tiles) {
    const title = BLOCK.exec(tile.adapter.name)?.[1] ?? '';
    if (groups.at(-1)?.title !== title) groups.push({ set: tile.adapter.set, title, tiles: [] });
    groups.at(-1)!.tiles.push(tile);
  }
  return groups;
}

function groupOf({ set, title, tiles }: Group, blocks: BlockNorms, peak: number, head: Heading) {
  const figures = tiles.map((tile) => figure(tile, blocks.get(tile.adapter)!, peak));
  if (head.none) return markup`<div class="group bare"><div class="tiles">${figures}</div></div>\n`;
  const [, above = '', last = ''] = /^((?:.*\.)?)([^.]+\.\d+)$/.exec(title) ?? [];
  const path = title !== '' && markup`<bdi>${above}<b>${last}</b></bdi>`;
  const name = head.sets && markup`<bdi class="set">${set}</bdi>`;
  return markup`<div class="group"><h3>${path}${name}</h3><div class="tiles">${figures}</div></div>\n`;
}

function figure({ adapter, target }: Tile, norms: readonly Float64Array[], peak: number): Markup {
  const [kIn, kOut] = adapter.grid;
  const label = `${adapter.name}: norm ${formatNorm(adapter.norm)}, ${kIn} by ${kOut} blocks`;
  const own = norms.reduce((max, row) => row.reduce((a, b) => Math.max(a, b), max), 0);
  const cells = norms.map((row, n) =>
    [...row].map((norm, j) => cell(target, adapter, [n, j], norm, { peak, own })),
  );
  const gap = Math.max(kIn, kOut) > 12 && ';--gap:1px';
  const shared = adapter.nodes.length > 1 && ` · ${adapter.nodes.length} nodes`;
  return markup`<figure class="tile">
<div class="grid" style="--k:${kOut}${gap}" role="img" aria-label="${label}">${cells}</div>
<figcaption><span class="norm">${formatNorm(adapter.norm)}</span><span class="soft">${shared}</span>
<span class="name">${pathOf(BLOCK.exec(adapter.name)?.[2] ?? adapter.name)}</span></figcaption>
</figure>`;
}

function cell(
  target: InspectedTarget,
  adapter: AdapterSummary,
  [n, j]: readonly [number, number],
  norm: number,
  scale: { readonly peak: number; readonly own: number },
): Markup {
  if (adapter.structure === 'diagonal' && adapter.hybridRank === 0 && n !== j) {
    return markup`<i class="none"></i>`;
  }
  const [inSize, outSize] = target.weight?.shape ?? [0, 0];
  const [kIn, kOut] = adapter.grid;
  const where = `in ${span(n, inSize / kIn)} → out ${span(j, outSize / kOut)}`;
  const tip = `${formatNorm(norm)} · block n ${n}, j ${j} · ${where}`;
  const part = (whole: number) => (whole === 0 ? 0 : norm / whole).toFixed(3);
  return markup`<i style="--all:${part(scale.peak)};--own:${part(scale.own)}" title="${tip}"></i>`;
}

function span(index: number, size: number): string {
  return `${index * size}–${(index + 1) * size - 1}`;
}

function legend(peak: number): Markup {
  const steps = Array.from(
    { length: 24 },
    (_, i) => markup`<i style="--v:${(i / 23).toFixed(3)}"></i>`,
  );
  return markup`<div class="legend"><div>‖ΔW[n, j]‖</div><div class="ramp">${steps}</div>
<div class="ticks all"><span>0</span><span>${formatNorm(peak / 2)}</span><span>${formatNorm(peak)}</span></div>
<div class="ticks own"><span>0</span><span>the layer’s largest block</span></div>
<label><input type="checkbox" id="own"> Scale each layer by itself</label></div>`;
}

function notesOn(tiles: readonly Tile[], blocks: BlockNorms): Markup[] {
  const count = (test: (tile: Tile) => boolean) => tiles.filter(test).length;
  const untouched = count(({ adapter }) => adapter.norm === 0);
  const broken = count(({ adapter }) => !Number.isFinite(adapter.norm));
  const fine = count(
    ({ adapter }) => adapter.norm > 0 && Number.isFinite(adapter.norm) && !blocks.has(adapter),
  );
  const all = untouched === tiles.length;
  return [
    all &&
      markup`<p class="note">The adapters are as they were inserted: ΔW is 0 everywhere, and the model computes what its base does.</p>`,
    untouched > 0 &&
      !all &&
      markup`<p class="note">${adapters(untouched)} still at 0 and not drawn.</p>`,
    fine > 0 && markup`<p class="note">${adapters(fine)} not drawn: too many blocks to see.</p>`,
    broken > 0 &&
      markup`<p class="note warn">${adapters(broken)} not drawn: not all numbers are finite.</p>`,
  ].filter((note) => note !== false);
}

function adapters(count: number): string {
  return count === 1 ? '1 adapter is' : `${count} adapters are`;
}
