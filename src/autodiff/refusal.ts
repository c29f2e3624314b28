/**
 * Why a node cannot be differentiated as it is used here: `its mode is not supported`. Rules and the
 * calculus throw it; differentiate turns it into the error that names the node and the path to it.
 */
export class Refusal extends Error {
  override readonly name = 'Refusal';

  constructor(
    reason: string,
    /** Advice for the user, where it is not the usual one. */
    readonly hint?: string,
  ) {
    super(reason);
  }
}
