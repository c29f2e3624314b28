/** Holds the thread where it is, until somebody kills the process. */
export function waitForever(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
