/** The class that frames without a character have, where a model spells and nothing else is said. */
export const DEFAULT_BLANK = 0;
