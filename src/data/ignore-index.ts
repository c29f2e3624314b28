export const DEFAULT_IGNORE_INDEX = -100;
