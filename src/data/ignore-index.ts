/** The label that PyTorch and everything made for it ignores. */
export const DEFAULT_IGNORE_INDEX = -100;
