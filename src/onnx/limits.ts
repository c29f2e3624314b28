/** Protobuf messages end here, for every reader. */
export const MAX_MESSAGE_BYTES = 2 ** 31 - 1;
