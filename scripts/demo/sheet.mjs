// A page with a few strips and what the model read on them before and after: it needs no other file.
import { encode } from 'fast-png';
import { Markup, markup } from '../../dist/src/report/markup.js';
import { height, width } from './strips.mjs';

/**
 * @param {{ text: string, ink: Float32Array }[]} strips
 * @param {{ title: string, readings: string[], exactMatch: number }[]} models in columns
 * @param {string} curve the SVG of the loss curve
 */
export function contactSheet(strips, models, curve) {
  return markup`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Handwritten digits, before and after</title>
<style>${new Markup(style)}</style>
<main>
<h1>Handwritten digits, before and after</h1>
<p>A reader of printed text learned other people’s handwriting through adapters, and kept its graph. Strips of digits that were not in training, read without a mistake:</p>
<dl>${models.map(
    ({ title, exactMatch }) =>
      markup`<div><dt>${title}</dt><dd>${(100 * exactMatch).toFixed(1)}<small>%</small></dd></div>`,
  )}</dl>
<figure>${new Markup(curve)}</figure>
<h2>The first ${strips.length} of them</h2>
<ol>${strips.map((strip, i) => card(strip, models, i))}</ol>
</main>
</html>
`.text;
}

function card({ text, ink }, models, i) {
  const rows = models.map(({ title, readings }) => {
    const right = readings[i] === text;
    return markup`<dt>${title}</dt><dd class="${right ? 'right' : 'wrong'}">${readings[i] || 'nothing'}<span>${right ? '✓' : '✗'}</span></dd>`;
  });
  return markup`<li><img alt="a strip that says ${text}" width="${width}" height="${height}" src="${pngOf(ink)}"><dl>${rows}</dl></li>\n`;
}

function pngOf(ink) {
  const data = Uint8Array.from(ink, (value) => Math.round(255 * (1 - value)));
  const png = encode({ width, height, channels: 1, data });
  return `data:image/png;base64,${Buffer.from(png).toString('base64')}`;
}

const style = `
:root { color-scheme: light dark; --paper: #f8f9fb; --card: #fff; --ink: #20242c; --soft: #626a78; --line: #e4e7ec; --right: #14783c; --wrong: #c0392b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #101216; --card: #181b21; --ink: #e6e8ec; --soft: #9aa2b1; --line: #2a2f38; --right: #58c98a; --wrong: #ff8a7a; }
}
* { box-sizing: border-box; margin: 0; padding: 0; }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 848px; margin: 0 auto; padding: 48px 32px 64px; }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -.015em; } h2 { font-size: 18px; margin: 40px 0 16px; }
p { color: var(--soft); max-width: 62ch; margin-top: 8px; }
main > dl { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; margin: 24px 0; border: 1px solid var(--line); border-radius: 12px; background: var(--card); }
main > dl > div { padding: 16px 24px; } main > dl > div + div { border-left: 1px solid var(--line); }
main > dl dt { color: var(--soft); font-size: 13px; } main > dl dd { font-size: 30px; font-weight: 600; line-height: 1.25; } small { font-size: 16px; color: var(--soft); margin-left: 2px; }
figure { border: 1px solid var(--line); border-radius: 12px; overflow: hidden; } figure svg { display: block; width: 100%; height: auto; }
ol { list-style: none; display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 16px; }
li { border: 1px solid var(--line); border-radius: 12px; overflow: hidden; background: var(--card); }
img { display: block; width: 100%; height: auto; background: #fff; border-bottom: 1px solid var(--line); }
li dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; padding: 10px 16px 12px; }
li dt { color: var(--soft); font-size: 13px; line-height: 24px; } li dd { display: flex; justify-content: space-between; font: 600 16px/24px ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
`;
