/** The largest singular values of a matrix A [rows, columns] with their vectors. */
export interface TruncatedSvd {
  /** Rows of the matrix. */
  readonly rows: number;
  /** Columns of the matrix. */
  readonly columns: number;
  /** Their number: what was asked for, or the rank of A where that is less. */
  readonly rank: number;
  /** Left singular vectors, the columns of U [rows, rank], row-major. */
  readonly u: Float64Array;
  /** Singular values, the largest first. */
  readonly s: Float64Array;
  /** Right singular vectors, the columns of V [columns, rank], row-major. */
  readonly v: Float64Array;
  /** |A|², the square of the Frobenius norm. */
  readonly squares: number;
  /**
   * |A − U·diag(s)·Vᵀ|², computed and not estimated: V has orthonormal columns and U·diag(s) is A·V,
   * so that it is |A|² − |A·V|².
   */
  readonly residual: number;
}
