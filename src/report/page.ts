/** The frame of every page: one file that needs nothing else, no network and no other file. */
import { createHash } from 'node:crypto';
import { version } from '../version.js';
import { type Content, Markup, markup } from './markup.js';
import { script, style } from './page-style.js';

// Should something of the model slip through as markup after all, it still cannot run or load.
const policy = [
  "default-src 'none'",
  "style-src 'unsafe-inline'",
  'img-src data:',
  `script-src 'sha256-${createHash('sha256').update(script).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

export interface PageParts {
  /** The command that made it. */
  readonly command: string;
  /** Its subject: a model's name. */
  readonly name: string;
  /** The subject's path. */
  readonly path: string;
  /** Lines below name and path in the head of the page. */
  readonly head: Content;
  readonly sections: Content;
  /** A sentence for the end of the page. */
  readonly note?: string | undefined;
}

/** A page about a model. Every text is escaped. */
export function page({ command, name, path, head, sections, note }: PageParts): string {
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${name} · onnx-lora ${command}</title>
<style>${new Markup(style)}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">onnx-lora ${command}</p>
<h1><bdi>${name}</bdi></h1>
<p class="soft mono"><bdi>${path}</bdi></p>
${head}
</header>
${sections}
<footer>onnx-lora ${version}.${note && ` ${note}`}</footer>
</main>
<div id="tip" role="status" hidden></div>
<script>${new Markup(script)}</script>
</body>
</html>
`.text;
}

/** A number in the row of large ones at the top. */
export function statistic(label: string, value: string, note = ''): Markup {
  return markup`<div><dt>${label}</dt><dd>${value}<small>${note}</small></dd></div>`;
}

/** A row of the list below them. */
export function fact(label: string, content: string | readonly Markup[]): Markup {
  const shown = typeof content === 'string' ? markup`<bdi>${content}</bdi>` : content;
  return markup`<dt>${label}</dt><dd>${shown}</dd>`;
}
