/**
 * Makes src/adapters/fold/kernel-bytes.ts of kernel.wat: `npm run wasm`, after every change of the latter.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import init from 'wabt';

const folder = new URL('../src/adapters/fold/', import.meta.url);

/** The text of the module that holds the kernel's bytes. */
export async function kernelModule() {
  const wabt = await init();
  const source = readFileSync(new URL('kernel.wat', folder), 'utf8');
  const { buffer } = wabt.parseWat('kernel.wat', source, { simd: true }).toBinary({});
  const bytes = Buffer.from(buffer).toString('base64');
  return `/** kernel.wat in binary form, in base64. Made by \`npm run wasm\`. */\nexport const KERNEL_BYTES =\n  '${bytes}';\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('kernel-bytes.ts', folder), await kernelModule());
}
