/** Which classes were taken for which: a matrix where it can be read, else the worst of it. */
import { formatCount } from './format.js';
import { type Markup, markup } from './markup.js';

/** Counts of labels and what was predicted for them. */
export interface Confusion {
  cells(): Iterable<{
    readonly label: number;
    readonly prediction: number;
    readonly count: number;
  }>;
}

// Nobody reads a matrix of more columns than this.
const MAX_CLASSES = 40;
const MAX_LISTED = 10;

/** @param names of the classes; a class without one goes by its number */
export function confusionSection(confusion: Confusion, names: readonly string[] = []): Markup {
  const cells = [...confusion.cells()];
  const classes = classesOf(cells);
  const name = (index: number) => names[index] ?? String(index);
  const wrong = cells
    .filter(({ label, prediction }) => label !== prediction)
    .sort((x, y) => y.count - x.count);
  return markup`<section><h2>Which classes are taken for which</h2>
${classes.length <= MAX_CLASSES ? matrix(cells, classes, name) : markup`<p class="intro">${formatCount(classes.length)} classes: too many for a matrix.</p>`}
${mistakes(wrong, name)}
</section>`;
}

type Cell = ReturnType<Confusion['cells']> extends Iterable<infer C> ? C : never;

function classesOf(cells: readonly Cell[]): number[] {
  const all = new Set(cells.flatMap(({ label, prediction }) => [label, prediction]));
  return [...all].sort((x, y) => x - y);
}

function matrix(
  cells: readonly Cell[],
  classes: readonly number[],
  name: (index: number) => string,
): Markup {
  const counts = new Map(cells.map((cell) => [`${cell.label} ${cell.prediction}`, cell.count]));
  const count = (label: number, prediction: number) => counts.get(`${label} ${prediction}`) ?? 0;
  const rows = classes.map((label) => {
    const total = classes.reduce((sum, prediction) => sum + count(label, prediction), 0);
    const shown = classes.map((prediction) =>
      square(count(label, prediction), total, `${name(label)} taken for ${name(prediction)}`),
    );
    return markup`<tr><th scope="row"><bdi>${name(label)}</bdi></th>${shown}<td class="num soft">${formatCount(total)}</td></tr>\n`;
  });
  return markup`<p class="intro">A row is a label, a column what was predicted for it. The stronger the colour, the larger the share of the row.</p>
<div class="table confusion"><table>
<thead><tr><th scope="col">Label</th>${classes.map((index) => markup`<th scope="col"><bdi>${name(index)}</bdi></th>`)}<th scope="col" class="num">All</th></tr></thead>
<tbody>${rows}</tbody></table></div>`;
}

function square(count: number, total: number, what: string): Markup {
  const share = total === 0 ? 0 : count / total;
  const percent = `${(100 * share).toFixed(1)}%`;
  return markup`<td class="square ${share > 0.5 && 'dark'}" style="--v:${share.toFixed(3)}" title="${what}: ${formatCount(count)}, ${percent}">${count > 0 && formatCount(count)}</td>`;
}

function mistakes(wrong: readonly Cell[], name: (index: number) => string): Markup {
  if (wrong.length === 0) return markup`<p class="intro">No mistake at all.</p>`;
  const rows = wrong
    .slice(0, MAX_LISTED)
    .map(
      ({ label, prediction, count }) =>
        markup`<tr><td><bdi>${name(label)}</bdi></td><td><bdi>${name(prediction)}</bdi></td><td class="num">${formatCount(count)}</td></tr>\n`,
    );
  return markup`<div class="table"><table>
<thead><tr><th scope="col">Label</th><th scope="col">taken for</th><th scope="col" class="num">times</th></tr></thead>
<tbody>${rows}</tbody></table></div>`;
}
