/** HTML in which nothing that comes from a model is ever taken for markup. */

/** Text that is markup already. Only `markup` makes it from text that is not a literal. */
export class Markup {
  constructor(readonly text: string) {}
}

export type Content = Markup | string | number | null | undefined | false | readonly Content[];

/** A template literal as markup: values in `${}` are escaped, unless it is `Markup` itself. */
export function markup(literals: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(literals.reduce((all, part, i) => all + render(values[i - 1]) + part));
}

function render(content: Content): string {
  if (content instanceof Markup) return content.text;
  if (content === null || content === undefined || content === false) return '';
  if (typeof content === 'object') return content.map(render).join('');
  return escapeText(String(content));
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

// Control characters are not allowed in HTML, and those that turn the direction of the text can make
// a name read as another.
const UNPRINTABLE = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu;

/** Text that is safe between tags and in quoted attributes. */
export function escapeText(text: string): string {
  return text
    .replace(UNPRINTABLE, '\ufffd')
    .replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}
