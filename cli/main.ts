#!/usr/bin/env node
/** The command line as a process: its signals, streams and exit code. */
import { fileError } from '../src/onnx/source.js';
import { exitCodes, failureText } from './failure.js';
import { runProgram } from './program.js';
import type { Ui } from './ui.js';

const SIGNALS = { SIGINT: exitCodes.interrupted, SIGTERM: 143, SIGHUP: 129 } as const;

/** The first signal stops the work and lets it clean up, the second one stops the process. */
function abortOnSignal(currentUi: () => Ui | undefined): AbortController {
  const controller = new AbortController();
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.on(signal, () => {
      currentUi()?.stop();
      if (controller.signal.aborted) process.exit(code);
      process.stderr.write('stopping; once more stops at once\n');
      controller.abort(code);
    });
  }
  return controller;
}

/** A reader that has seen enough (`| head`) is not a failure; a full disk behind `>` is one. */
function watchStreams(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return;
    process.stderr.write(failureText(fileError('standard output', error)));
    process.exitCode = exitCodes.input;
  });
  // Nobody is left to tell, as where the terminal was closed.
  process.stderr.on('error', () => {});
}

watchStreams();
let ui: Ui | undefined;
const { signal } = abortOnSignal(() => ui);
const onUi = (current: Ui) => {
  ui = current;
};
const exitCode = await runProgram(process.argv.slice(2), { signal, onUi });
// Work that was interrupted and given up may still hold the process.
if (exitCode >= 128) process.exit(exitCode);
process.exitCode ||= exitCode;
