/** The inspect report as a page. */
import { basename } from 'node:path';
import type { AdapterSummary } from '../adapters/kinds/summary.js';
import { formatAligned, formatBytes, formatCount, pathOf } from './format.js';
import { heatmaps } from './heatmap.js';
import type {
  BlockNorms,
  InspectedTarget,
  InspectedValue,
  InspectResult,
  ModelFacts,
} from './inspection.js';
import { type Markup, markup } from './markup.js';
import { fact, page, statistic } from './page.js';

/** The page for a model. Every text from the model is escaped. */
export function inspectPage(result: InspectResult, blocks: BlockNorms): string {
  const { path } = result.model;
  return page({
    command: 'inspect',
    name: basename(path),
    path,
    head: [statistics(result), facts(result)],
    sections: [heatmaps(result, blocks), layers(result.targets)],
    note: '‖ΔW‖ is the Frobenius norm of what an adapter adds to its weight, scale included.',
  });
}

function statistics({ model, summary, sets }: InspectResult): Markup {
  const { targets, eligible, adapted, adapterParameters, percent } = summary;
  const setNames = sets.length > 1 ? `in ${sets.length} sets` : '';
  const share = percent > 0 && percent < 0.01 ? '< 0.01' : Number(percent.toPrecision(3));
  return markup`<dl class="stats">
${statistic('Parameters', formatCount(model.parameters), formatBytes(totalBytes(model)))}
${statistic('Can take an adapter', formatCount(eligible), `of ${formatCount(targets)} layers`)}
${statistic('Carry an adapter', formatCount(adapted), setNames || `of ${formatCount(eligible)}`)}
${statistic('Adapter parameters', formatCount(adapterParameters), `${share}% of all`)}
</dl>`;
}

function totalBytes({ bytes, externalData }: ModelFacts): number {
  return externalData.reduce((sum, data) => sum + (data.bytes ?? 0), bytes);
}

function facts({ model, inputs, outputs, sets }: InspectResult): Markup {
  const opsets = model.opsets.map(({ domain, version }) => `${domain} ${version}`).join(', ');
  return markup`<dl class="facts">
${model.producer !== '' && fact('Producer', model.producer)}
${fact('Format', `IR version ${model.irVersion}, opset ${opsets || 'not said'}`)}
${model.externalData.length > 0 && fact('External data', model.externalData.map(dataFile))}
${fact('Inputs', inputs.map(value))}
${fact('Outputs', outputs.map(value))}
${sets.length > 0 && fact(sets.length > 1 ? 'Adapter sets' : 'Adapter set', sets.map(set))}
</dl>`;
}

function dataFile({ location, bytes }: ModelFacts['externalData'][number]): Markup {
  const size = bytes === null ? markup`<span class="warn">missing</span>` : formatBytes(bytes);
  return markup`<div class="value"><bdi class="mono">${location}</bdi><span class="soft">${size}</span></div>`;
}

function value({ name, type, shape }: InspectedValue): Markup {
  const dims = shape ? `[${shape.map((dim) => dim ?? '?').join(', ')}]` : 'any shape';
  return markup`<div class="value"><bdi class="mono">${name}</bdi><span class="soft">${type} <bdi>${dims}</bdi></span></div>`;
}

function set({ name, adapters, parameters, createdBy }: InspectResult['sets'][number]): Markup {
  const count = `${formatCount(adapters)} ${adapters === 1 ? 'adapter' : 'adapters'}`;
  return markup`<div class="value"><bdi class="mono">${name}</bdi><span class="soft">${count}, ${formatCount(parameters)} parameters, by <bdi>${createdBy}</bdi></span></div>`;
}

function layers(targets: readonly InspectedTarget[]): Markup {
  if (targets.length === 0) {
    return markup`<section><h2>Layers</h2><p class="intro">The model has no operator that multiplies with a weight matrix.</p></section>`;
  }
  const adapted = targets.some(({ adapter }) => adapter !== null);
  const peak = finiteNorms(targets).reduce((max, norm) => Math.max(max, norm), 0);
  return markup`<section>
<div class="head"><h2>Layers</h2>
<div class="tools"><span id="count">${formatCount(targets.length)} layers</span>
<input type="search" id="search" placeholder="Filter by name, type, reason" aria-label="Filter the layers"></div></div>
<div class="table"><table id="layers" class="${!adapted && 'unadapted'}">
<thead><tr>${columns.map(header)}</tr></thead>
<tbody>
${targets.map((target) => row(target, peak))}</tbody>
</table></div>
</section>`;
}

function finiteNorms(targets: readonly InspectedTarget[]): number[] {
  return targets.flatMap(({ adapters }) =>
    adapters.map(({ norm }) => norm).filter(Number.isFinite),
  );
}

const columns = [
  ['Layer', ''],
  ['Operator', 'wide'],
  ['Weight', 'num wide'],
  ['Type', 'wide mid'],
  ['Adapter', 'wide'],
  ['Parameters', 'num wide mid count'],
  ['‖ΔW‖', 'num delta'],
] as const;

function header([label, className]: (typeof columns)[number]): Markup {
  return markup`<th scope="col" class="${className}"><button type="button">${label}</button></th>`;
}

function row(target: InspectedTarget, peak: number): Markup {
  const { weight, adapter, eligible } = target;
  const size = weight && weight.shape[0] * weight.shape[1];
  const shape = weight && markup`${formatCount(weight.shape[0])} × ${formatCount(weight.shape[1])}`;
  const state = adapter ? structureOf(adapter) : eligible ? 'can take one' : '';
  return markup`<tr class="${eligible ? 'yes' : 'no'}" data-q="${target.node} ${target.reason}"><td>${layerName(target)}</td>
<td class="wide nowrap">${operatorName(target.op)}</td>
<td class="wide num" data-v="${size}">${shape}</td>
<td class="wide mid nowrap" title="${weight?.source}">${weight?.dtype}</td>
<td class="wide nowrap ${adapter ? '' : 'soft'}">${state}${adapter && adapterDetail(target)}</td>
<td class="num wide mid count" data-v="${adapter?.parameters}">${adapter && formatCount(adapter.parameters)}</td>
<td class="num delta" data-v="${adapter?.norm}">${adapter && norms(target, peak)}</td></tr>
`;
}

function layerName({
  module,
  node,
  op,
  weight,
  eligible,
  reason,
  adapter,
}: InspectedTarget): Markup {
  const short = weight && markup`${operatorName(op)}, ${weight.shape.join(' × ')} ${weight.dtype}`;
  const narrow = markup`<span class="sub narrow">${short}${adapter && markup`<br>${structureOf(adapter)}`}</span>`;
  const title = eligible ? `${node}: ${reason}` : node;
  return markup`<span title="${title}">${pathOf(module)}</span>${eligible ? narrow : markup`<span class="sub"><bdi>${reason}</bdi></span>`}`;
}

function operatorName(op: string): string {
  return op.slice(op.lastIndexOf(':') + 1);
}

function structureOf({ kind, structure, grid, rank }: AdapterSummary): string {
  const blocks = structure === 'global' ? '' : ` ${grid.join(' × ')}`;
  const prefix = kind === 'lora' ? '' : `${kind} `;
  return `${prefix}${structure}${blocks}, rank ${rank}`;
}

function adapterDetail({ adapters }: InspectedTarget): Markup | undefined {
  if (adapters.length < 2) return undefined;
  return markup`<span class="sub">${adapters.length} sets: <bdi>${adapters.map(({ set }) => set).join(', ')}</bdi></span>`;
}

function norms({ adapters }: InspectedTarget, peak: number): Markup[] {
  return adapters.map(({ norm }) => {
    if (!Number.isFinite(norm)) return markup`<div class="warn">${String(norm)}</div>`;
    const part = peak > 0 ? (norm / peak).toFixed(3) : '0';
    return markup`<div class="${norm === 0 ? 'soft' : ''}"><span class="bar"><i style="--v:${part}"></i></span>${formatAligned(norm, peak)}</div>`;
  });
}
