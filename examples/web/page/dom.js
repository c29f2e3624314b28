// Two words for what the document has long names for.

/** The part of the page with an id. */
export const part = (id) => document.getElementById(id);

/** A new element. */
export function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
