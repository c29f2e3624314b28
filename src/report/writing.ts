/** The writing of a language model in the course of a run: a column a prompt, from the first look to the last. */
import { type Markup, markup } from './markup.js';

export interface WrittenAt {
  readonly step: number;
  readonly samples: readonly { readonly prompt: string; readonly text: string }[];
}

/** More would not be read. */
const MOST_ROWS = 25;

/** Nothing for a run without samples. */
export function writingSection(looks: readonly WrittenAt[]): Markup | undefined {
  const prompts = looks.at(-1)?.samples.map(({ prompt }) => prompt);
  if (!prompts) return undefined;
  const rows = evenly(looks).map(
    ({ step, samples }) =>
      markup`<tr><th scope="row">${step}</th>${samples.map(({ text }) => markup`<td>${text}</td>`)}</tr>\n`,
  );
  return markup`<section><h2>What the model writes</h2>
<p class="intro">After each prompt, by the likeliest token, at these steps.</p>
<div class="table"><table class="writing"><thead><tr><th scope="col">Step</th>${prompts.map((prompt) => markup`<th scope="col">${prompt}</th>`)}</tr></thead>
<tbody>${rows}</tbody></table></div></section>`;
}

/** The first, the last, and some in between. */
function evenly(looks: readonly WrittenAt[]): readonly WrittenAt[] {
  if (looks.length <= MOST_ROWS) return looks;
  const last = MOST_ROWS - 1;
  return Array.from({ length: MOST_ROWS }, (_, i) => {
    return looks[Math.round((i * (looks.length - 1)) / last)]!;
  });
}
