/**
 * A disk that is broken from some call on, for a process that this file is loaded into before all else: `write 3` in
 * BROKEN_DISK lets the third write or sync fail, and all that follow, and `read 2` the second read.
 */
import fs from 'node:fs';
import { open } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const [broken, at] = (process.env.BROKEN_DISK ?? '').split(' ');
let calls = 0;

/** The call, which fails when its time has come. */
function failing(kind, syscall, call) {
  return function (...args) {
    if (kind !== broken || ++calls < Number(at)) return call.apply(this, args);
    throw Object.assign(new Error(`EIO: i/o error, ${syscall}`), {
      code: 'EIO',
      errno: -5,
      syscall,
    });
  };
}

const handle = await open('/dev/null');
const prototype = Object.getPrototypeOf(handle);
await handle.close();
for (const name of ['write', 'writev', 'sync', 'datasync', 'truncate']) {
  const call = failing('write', name, prototype[name]);
  prototype[name] = async function (...args) {
    return call.apply(this, args);
  };
}
fs.readSync = failing('read', 'read', fs.readSync);
syncBuiltinESMExports();
