/** The beginning of a value of a row, for a message; rows may be nested deeper than can be written. */
export function brief(value: unknown, characters = 40): string {
  try {
    return String(JSON.stringify(value)).slice(0, characters);
  } catch {
    return 'a value that is nested too deep';
  }
}
