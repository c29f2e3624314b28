/** The look of the pages, and the few lines that make a table sort and filter. */

// The ramp keeps one hue and moves in even steps of OKLCH lightness, so equal steps of the number
// look equal; towards the page's own background is always "little".
export const style = `
:root {
  color-scheme: light dark;
  --hue: 258;
  --paper: oklch(.984 .003 var(--hue)); --card: oklch(1 0 0);
  --ink: oklch(.25 .018 var(--hue)); --soft: oklch(.5 .018 var(--hue)); --line: oklch(.915 .006 var(--hue));
  --accent: oklch(.5 .14 var(--hue)); --wash: oklch(.965 .008 var(--hue)); --warn: oklch(.55 .15 35);
  --l0: .952; --l1: .345; --c0: .012; --c1: .125; --bow: .17;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: oklch(.178 .01 var(--hue)); --card: oklch(.214 .012 var(--hue));
    --ink: oklch(.93 .008 var(--hue)); --soft: oklch(.69 .014 var(--hue)); --line: oklch(.3 .012 var(--hue));
    --accent: oklch(.75 .11 var(--hue)); --wash: oklch(.25 .014 var(--hue)); --warn: oklch(.75 .13 45);
    --l0: .282; --l1: .905; --c0: .022; --c1: .028; --bow: .4;
  }
}
* { box-sizing: border-box; margin: 0; }
[hidden] { display: none !important; }
body {
  background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-print-color-adjust: exact; print-color-adjust: exact;
}
main { max-width: 1160px; margin: 0 auto; padding: 56px 40px 72px; }
code, .mono { font: .92em/1.5 ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, "Liberation Mono", monospace; }
bdi { overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.eyebrow { color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: .02em; }
h1 { font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -.018em; margin: 6px 0 4px; }
h2 { font-size: 19px; line-height: 1.3; font-weight: 620; letter-spacing: -.01em; }
section { margin-top: 56px; }
.intro { color: var(--soft); max-width: 68ch; margin-top: 6px; text-wrap: pretty; }
.stats { display: grid; grid-template-columns: repeat(4, 1fr); margin-top: 32px; border: 1px solid var(--line); border-radius: 12px; background: var(--card); }
.stats > div { padding: 18px 24px 20px; border-left: 1px solid var(--line); }
.stats > div:first-child { border-left: 0; }
.stats dt { color: var(--soft); font-size: 13px; }
.stats dd { font-size: 26px; line-height: 1.25; font-weight: 600; letter-spacing: -.015em; margin-top: 2px; }
.stats small { display: block; color: var(--soft); font-size: 13px; font-weight: 400; letter-spacing: 0; margin-top: 2px; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 7px 28px; margin-top: 32px; }
.facts dt { color: var(--soft); }
.facts dd { min-width: 0; }
.facts .value + .value { margin-top: 2px; }
.facts .value { display: grid; grid-template-columns: minmax(min(11rem, 40%), max-content) 1fr; gap: 0 16px; align-items: baseline; }
.warn { color: var(--warn); }

.head { display: flex; flex-wrap: wrap; align-items: end; justify-content: space-between; gap: 16px 32px; }
.legend { width: 240px; color: var(--soft); font-size: 12.5px; }
.ramp { display: flex; height: 10px; border-radius: 3px; overflow: hidden; margin: 4px 0 3px; }
.ramp i { flex: 1; }
.ticks { display: flex; justify-content: space-between; }
.legend label { display: inline-flex; gap: 7px; align-items: center; margin-top: 8px; cursor: pointer; }
.legend input { accent-color: var(--accent); margin: 0; }
.learned:has(#own:checked) .all, .learned:not(:has(#own:checked)) .own { display: none; }
.grid i { --v: var(--all); }
.learned:has(#own:checked) .grid i { --v: var(--own); }
.ramp i, .grid i {
  background: oklch(calc(var(--l0) + (var(--l1) - var(--l0)) * var(--v))
    calc(var(--c0) + (var(--c1) - var(--c0)) * var(--v) + var(--bow) * var(--v) * (1 - var(--v))) var(--hue));
}
.maps { margin-top: 24px; border: 1px solid var(--line); border-radius: 12px; background: var(--card); }
.group { display: grid; grid-template-columns: 132px 1fr; gap: 8px 24px; padding: 22px 24px 24px; }
.group + .group { border-top: 1px solid var(--line); }
.group h3 { font-size: 14px; font-weight: 400; color: var(--soft); line-height: 1.45; }
.group h3 b { display: block; color: var(--ink); font-weight: 600; font-size: 15px; }
.group.bare { grid-template-columns: 1fr; }
.group h3 .set { display: block; font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 24px 18px; }
.tile { display: flex; flex-direction: column; min-width: 0; max-width: 148px; }
.tile figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 7px; }
.tile .name { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.tile .norm { font-size: 13.5px; font-weight: 600; }
.tile .path { color: var(--soft); }
.tile .path b { color: var(--ink); font-weight: 500; }
.grid { display: grid; grid-template-columns: repeat(var(--k), 1fr); grid-auto-rows: 1fr; gap: var(--gap, 2px); aspect-ratio: 1; }
.grid i { border-radius: 2px; }
.grid i.none { background: none; box-shadow: inset 0 0 0 1px var(--line); }
.grid i:hover { outline: 2px solid var(--ink); outline-offset: 0; z-index: 1; }
.note { padding: 14px 24px; color: var(--soft); border-top: 1px solid var(--line); }
.note:first-child { border-top: 0; }
#tip {
  position: fixed; z-index: 9; pointer-events: none; padding: 7px 11px; border-radius: 8px; max-width: calc(100vw - 16px);
  background: var(--ink); color: var(--paper); font-size: 13px; line-height: 1.4;
}

.tools { display: flex; align-items: center; gap: 14px; color: var(--soft); font-size: 13.5px; }
input[type=search] {
  font: inherit; font-size: 14px; color: var(--ink); background: var(--card); width: 260px; padding: 7px 12px;
  border: 1px solid var(--line); border-radius: 8px;
}
input[type=search]::placeholder { color: var(--soft); opacity: 1; }
:is(input, button):focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.table { margin-top: 20px; border: 1px solid var(--line); border-radius: 12px; background: var(--card); overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: baseline; padding: 10px 12px; }
:is(th, td):first-child { padding-left: 24px; }
:is(th, td):last-child { padding-right: 24px; }
thead th { padding-top: 6px; padding-bottom: 6px; font-weight: 500; border-bottom: 1px solid var(--line); white-space: nowrap; }
th button {
  font: inherit; font-size: 13px; color: var(--soft); background: none; border: 0; border-radius: 5px;
  padding: 4px 6px; margin: 0 -6px; cursor: pointer;
}
th button::after { content: "↓"; opacity: 0; margin-left: 4px; }
th.num button::before { content: "↓"; opacity: 0; margin-right: 4px; }
th.num button::after { content: none; }
th[aria-sort] button { color: var(--ink); }
th:not(.num)[aria-sort] button::after, th.num[aria-sort] button::before { opacity: 1; }
th[aria-sort=ascending] button::after, th[aria-sort=ascending] button::before { content: "↑" !important; }
th.num[aria-sort=ascending] button::after { content: none !important; }
th button:hover { color: var(--ink); }
tbody tr + tr { border-top: 1px solid var(--line); }
tbody tr:hover { background: var(--wash); }
tr.no :is(td, .path) { color: var(--soft); }
.writing { table-layout: fixed; }
.writing :is(th, td) { overflow-wrap: anywhere; white-space: pre-wrap; }
.writing :is(th, td):first-child { width: 88px; }
.writing tbody th { font-weight: 500; color: var(--soft); }
.num { text-align: right; white-space: nowrap; }
.path b { font-weight: 600; }
tr.no .path b { font-weight: 500; }
.sub { display: block; color: var(--soft); font-size: 12.5px; line-height: 1.45; text-wrap: pretty; }
.nowrap { white-space: nowrap; }
td.delta { min-width: 128px; }
.bar { display: inline-block; vertical-align: middle; width: 56px; height: 6px; margin-right: 10px; border-radius: 3px; background: var(--wash); overflow: hidden; }
.bar i { display: block; height: 100%; width: calc(var(--v) * 100%); border-radius: 3px; background: var(--accent); }
img.curve { display: block; width: 100%; height: auto; border-radius: 12px; }
.measures { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 16px; margin-top: 20px; }
.measure { border: 1px solid var(--line); border-radius: 12px; background: var(--card); padding: 14px 18px; }
.measure figcaption { color: var(--soft); font-size: 13px; display: flex; justify-content: space-between; align-items: baseline; }
.measure b { color: var(--ink); font-size: 19px; font-weight: 600; }
.measure svg { display: block; width: 100%; margin-top: 8px; }
.measure path { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.measure circle { fill: var(--accent); }
.measure .ticks { color: var(--soft); font-size: 12px; }
.confusion { width: fit-content; max-width: 100%; }
.confusion table { font-size: 13px; }
.confusion + .table { width: fit-content; }
.confusion + .intro { margin-top: 14px; }
.confusion :is(th, td) { padding: 6px 9px; }
.confusion :is(thead th, td.square) { text-align: center; }
.confusion tbody th { font-weight: 500; white-space: nowrap; }
.confusion tbody tr:hover { background: none; }
.square {
  min-width: 34px;
  background: oklch(calc(var(--l0) + (var(--l1) - var(--l0)) * var(--v))
    calc(var(--c0) + (var(--c1) - var(--c0)) * var(--v) + var(--bow) * var(--v) * (1 - var(--v))) var(--hue));
}
.square.dark { color: var(--card); }
.unadapted :is(.delta, .count) { display: none; }
.narrow { display: none; }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }

@media (max-width: 860px) { .mid { display: none; } }
@media (max-width: 640px) {
  main { padding: 32px 20px 48px; }
  h1 { font-size: 24px; }
  section { margin-top: 44px; }
  .stats { grid-template-columns: 1fr 1fr; }
  .stats > div { padding: 14px 16px 16px; }
  .stats > div:nth-child(odd) { border-left: 0; }
  .stats > div:nth-child(n + 3) { border-top: 1px solid var(--line); }
  .stats dd { font-size: 22px; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: 12px; }
  .facts .value { display: flex; flex-wrap: wrap; gap: 0 12px; }
  .legend { width: 100%; }
  .group { grid-template-columns: 1fr; padding: 18px 16px 20px; gap: 14px; }
  .group h3 b { display: inline; }
  .group h3:empty { display: none; }
  .tiles { grid-template-columns: repeat(3, 1fr); gap: 20px 14px; }
  .note { padding: 14px 16px; }
  .tools { width: 100%; }
  input[type=search] { flex: 1; width: auto; min-width: 0; font-size: 16px; }
  .wide { display: none; }
  .narrow { display: block; }
  th, td { padding-left: 8px; padding-right: 8px; }
  :is(th, td):first-child { padding-left: 16px; }
  :is(th, td):last-child { padding-right: 16px; }
  td.delta { min-width: 0; }
  th:first-child { width: 100%; }
  .delta .bar { display: none; }
}
`;

export const script = `
const table = document.getElementById('layers');
if (table) {
  const body = table.tBodies[0], rows = [...body.rows];
  const search = document.getElementById('search'), count = document.getElementById('count');
  search.addEventListener('input', () => {
    const words = search.value.toLowerCase().split(/\\s+/);
    let shown = 0;
    for (const row of rows) {
      const text = (row.textContent + ' ' + row.dataset.q).toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown === rows.length ? rows.length + ' layers' : shown + ' of ' + rows.length;
  });
  const key = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  const compare = (x, y) => x - y || x.localeCompare(y, 'en', { numeric: true });
  table.tHead.addEventListener('click', ({ target }) => {
    const header = target.closest('button')?.parentElement;
    if (!header) return;
    const first = header.classList.contains('num') ? 'descending' : 'ascending';
    const second = first === 'ascending' ? 'descending' : 'ascending';
    const now = header.getAttribute('aria-sort');
    const next = now === null ? first : now === first ? second : null;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
    if (next === null) return body.append(...rows);
    header.setAttribute('aria-sort', next);
    const column = header.cellIndex, sign = next === 'ascending' ? 1 : -1;
    const empty = (row) => key(row, column) === '';
    body.append(...[...rows].sort((x, y) =>
      empty(x) - empty(y) || sign * compare(key(x, column), key(y, column))));
  });
}
const tip = document.getElementById('tip');
for (const cell of document.querySelectorAll('.grid [title]')) {
  cell.dataset.tip = cell.title;
  cell.removeAttribute('title');
}
document.addEventListener('pointerover', ({ target }) => {
  const text = target.dataset?.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const cell = target.getBoundingClientRect(), box = tip.getBoundingClientRect();
  const left = cell.left + cell.width / 2 - box.width / 2;
  tip.style.left = Math.max(8, Math.min(left, innerWidth - box.width - 8)) + 'px';
  tip.style.top = (cell.top > box.height + 14 ? cell.top - box.height - 6 : cell.bottom + 6) + 'px';
});
document.addEventListener('scroll', () => { tip.hidden = true; }, { passive: true });
`;
