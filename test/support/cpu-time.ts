/** Limits of time that hold on a busy machine too. */

/**
 * Seconds that this process computes while `work` is done, in all of its threads. Other programs make it
 * wait longer, not compute longer.
 */
export async function cpuSeconds(work: () => unknown): Promise<number> {
  const start = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6;
}
