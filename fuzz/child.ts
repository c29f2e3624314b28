/** The process that cases run in: it makes the input of each, reads it, and tells how that ended. */
import { join } from 'node:path';
import { type Case, type Ending, inputOf, runCase, Strays, writeInput } from './case.js';
import type { Files, Reader } from './reader.js';
import { type ReaderName, readers } from './readers/index.js';

/** `prepare` loads a reader and makes its seeds; `folder` is read as it is, without a case. */
export type Request =
  | { readonly kind: 'prepare'; readonly reader: ReaderName }
  | { readonly kind: 'run'; readonly one: Case }
  | { readonly kind: 'replay'; readonly reader: ReaderName; readonly folder: string };

/** `failed`: not the reader did, but what makes its inputs. */
export type Reply =
  | { readonly kind: 'prepared' }
  | ({ readonly kind: 'ended' } & Ending)
  | { readonly kind: 'failed'; readonly error: string };

const work = process.argv[2]!;
const strays = new Strays();
const seeds = new Map<ReaderName, readonly Files[]>();

process.on('message', async (request: Request) => {
  process.send?.(
    await answer(request).catch((error) => ({ kind: 'failed', error: String(error.stack) })),
  );
});

async function answer(request: Request): Promise<Reply> {
  if (request.kind === 'replay') return ended(await readers[request.reader](), request.folder);
  if (request.kind === 'prepare') {
    seeds.set(request.reader, await (await readers[request.reader]()).seeds());
    return { kind: 'prepared' };
  }
  const { one } = request;
  const reader = await readers[one.reader]();
  const folder = join(work, 'case');
  writeInput(inputOf(reader, seeds.get(one.reader)!, one), folder);
  return ended(reader, folder);
}

async function ended(reader: Reader, folder: string): Promise<Reply> {
  return { kind: 'ended', ...(await runCase(reader, folder, strays)) };
}
