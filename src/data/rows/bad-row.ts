/** Something is wrong with one row; who reads the file says which one, or leaves it out. */
export class BadRow extends Error {
  /** @param hint what the user can do */
  constructor(
    problem: string,
    readonly hint?: string,
  ) {
    super(problem);
  }
}
