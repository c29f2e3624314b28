/** Rows of a model's inputs that a sample of pairs is: an anchor and its positive. */
export const PAIR = 2;

/** With a text that the anchor is not to find. */
export const TRIPLE = 3;
