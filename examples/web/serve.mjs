// Serves the page and what it loads, from four folders and nothing else.
//
//   npm run example:web            prepare and serve; PORT chooses the port
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname, extname, join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const ort = dirname(
  fileURLToPath(import.meta.resolve('onnxruntime-web/ort-wasm-simd-threaded.wasm')),
);

const types = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
};

/**
 * Serves on the given port of this machine (0: any that is free).
 * @param model the folder that `prepare` wrote into
 */
export async function serve(model, port) {
  const folders = new Map([
    ['onnx-lora', join(root, 'dist/src')],
    ['onnxruntime-web', ort],
    ['model', resolve(model)],
    ['', fileURLToPath(new URL('page', import.meta.url))],
  ]);
  const server = createServer((request, response) => answer(request, response, folders));
  await once(server.listen(port, '127.0.0.1'), 'listening');
  return { server, url: `http://127.0.0.1:${server.address().port}/` };
}

async function answer({ url }, response, folders) {
  const [path] = url.split('?');
  const [, first] = path.split('/');
  const mount = folders.has(first) ? first : '';
  const folder = folders.get(mount);
  const file = join(folder, path.slice(mount.length + 1) || 'index.html');
  const found = await stat(file).catch(() => undefined);
  if (!file.startsWith(folder + sep) || !found?.isFile()) {
    response.writeHead(404).end();
    return;
  }
  const type = types[extname(file)] ?? 'application/octet-stream';
  response.writeHead(200, { 'content-type': type, 'content-length': found.size });
  createReadStream(file).pipe(response);
}
