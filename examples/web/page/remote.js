// The worker as a function that can be called.
const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
const waiting = new Map();
let onProgress = () => {};
let calls = 0;

worker.addEventListener('message', ({ data: { id, result, error, progress } }) => {
  if (progress) return onProgress(progress);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(Object.assign(new Error(error.message), error));
  else resolve(result);
});

/** Lets the worker do something; a promise of its result. */
export function call(action, argument) {
  const id = ++calls;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, action, argument });
  });
}

/** Ends training after the current step. */
export function stop() {
  worker.postMessage({ action: 'stop' });
}

/** Calls `listener` behind each step. */
export function listen(listener) {
  onProgress = listener;
}
