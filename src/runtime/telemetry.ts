/**
 * ONNX Runtime's telemetry. Its library keeps a device id and a queue of events in the user's cache, leaves
 * files in the temporary folder, and sends what it gathered to its maker. It reads one variable of the
 * environment when the first session of the process is made, and stays silent where that says so.
 */
import { Session } from 'node:inspector';
import { setTimeout } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';

const VARIABLE = 'ORT_DISABLE_TELEMETRY';

// A main thread that waits for this one does not answer.
const ANSWER_MS = 1000;

/**
 * Turns telemetry off for this process and those it starts, unless its user set the variable
 * (`ORT_DISABLE_TELEMETRY=0` keeps it on). To be called before the runtime is loaded.
 */
export async function withoutTelemetry(): Promise<void> {
  process.env[VARIABLE] ||= '1';
  if (isMainThread) return;
  // Nothing else may keep a worker alive while it waits: the timer has to.
  const answered = new AbortController();
  const late = setTimeout(ANSWER_MS, undefined, { signal: answered.signal }).catch(() => {});
  await Promise.race([setInMainThread(), late]);
  answered.abort();
}

/** The environment of a worker is a copy, which native code does not see. */
async function setInMainThread(): Promise<void> {
  const session = new Session();
  try {
    session.connectToMainThread();
    await new Promise((resolve) => {
      const expression = `process.env.${VARIABLE} ||= ${JSON.stringify(process.env[VARIABLE])}`;
      session.post('Runtime.evaluate', { expression }, resolve);
    });
  } catch {
    // A Node that was built without its inspector.
  } finally {
    session.disconnect();
  }
}
