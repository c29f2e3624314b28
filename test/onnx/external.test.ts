import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../src/errors.js';
import { checkExternalData, ExternalFiles, externalLocations } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { FileSource } from '../../src/onnx/source.js';
import { failure, temporaryFolder } from '../support/files.js';
import { constant, model, node, type TensorProto } from '../support/models.js';

const files = temporaryFolder();

/** A tensor of two floats in a data file. */
function external(name: string, location: string, offset = 0): TensorProto {
  const entries = Object.entries({ location, offset: String(offset), length: '8' });
  return {
    name,
    dims: [2],
    dataType: 1,
    dataLocation: 1,
    externalData: entries.map(([key, value]) => ({ key, value })),
  };
}

/** A model in a folder of its own whose tensor is at `location`. */
function modelWith(location: string, offset = 0) {
  const folder = files.fresh('folder');
  mkdirSync(folder);
  const path = join(folder, 'model.onnx');
  const initializers = [external('t', location, offset)];
  writeFileSync(path, model({ nodes: [], initializers, outputs: [] }));
  writeFileSync(join(folder, 'w.data'), new Uint8Array(8));
  return { path, folder };
}

async function refusal(path: string, code: ErrorCode = 'external-data'): Promise<string> {
  const opened = openModel(path);
  try {
    return (await failure(() => checkExternalData(opened), code)).message;
  } finally {
    opened.close();
  }
}

function accepts(path: string): void {
  const opened = openModel(path);
  checkExternalData(opened);
  opened.close();
}

describe('a location', () => {
  it.each(['w.data', './w.data'])('is taken relative to the model: %s', (location) => {
    accepts(modelWith(location).path);
  });

  it.each([
    '/etc/hostname',
    '../w.data',
    'sub/../../w.data',
    'sub/../w.data',
    '..',
    '',
    'C:\\w.data',
    'c:w.data',
    '..\\w.data',
    'sub\\..\\..\\w.data',
    'w.data\0.txt',
  ])('outside the folder is refused: %j', async (location) => {
    const { path } = modelWith(location);
    const message = await refusal(path);
    expect(message).toContain(`external data ${JSON.stringify(location)} of tensor t`);
    expect(message).toContain("is not inside the model's folder");
  });

  it('may be a link that stays inside', () => {
    const { path, folder } = modelWith('link.data');
    symlinkSync('w.data', join(folder, 'link.data'));
    accepts(path);
  });

  it('may be a hard link, as caches make them', () => {
    const { path, folder } = modelWith('link.data');
    linkSync(join(folder, 'w.data'), join(folder, 'link.data'));
    accepts(path);
  });

  it('may be beside a model that is reached through a link', () => {
    const { folder } = modelWith('w.data');
    const link = files.fresh('link');
    symlinkSync(folder, link);
    accepts(join(link, 'model.onnx'));
  });

  it.each([
    ['a link to a file', (folder: string) => symlinkSync('/etc/hostname', join(folder, 'out'))],
    ['a link up', (folder: string) => symlinkSync('../secret', join(folder, 'out'))],
  ])('outside through %s is refused', async (_, make) => {
    const { path, folder } = modelWith('out');
    writeFileSync(join(dirname(folder), 'secret'), new Uint8Array(8));
    make(folder);
    expect(await refusal(path)).toContain("is not inside the model's folder");
  });

  it('outside through a linked folder is refused', async () => {
    const { path, folder } = modelWith('sub/hostname');
    symlinkSync('/etc', join(folder, 'sub'));
    expect(await refusal(path)).toContain("is not inside the model's folder");
  });

  it('that is missing is named with the path it should have', async () => {
    const { path, folder } = modelWith('missing.data');
    expect(await refusal(path)).toContain(
      `does not exist (expected ${join(folder, 'missing.data')})`,
    );
  });

  it('that is a folder is refused', async () => {
    const { path, folder } = modelWith('sub');
    mkdirSync(join(folder, 'sub'));
    expect(await refusal(path, 'not-a-file')).toContain('is a directory, expected a file');
  });

  it('below a file is refused', async () => {
    await refusal(modelWith('w.data/x').path, 'file-not-found');
  });

  it('that ends before its tensor does is refused with the numbers', async () => {
    const { path, folder } = modelWith('w.data', 4);
    expect(await refusal(path)).toContain(
      `tensor t needs bytes 4 to 12 of ${join(folder, 'w.data')}, which has 8`,
    );
  });

  it('has no limit of 4 GiB', () => {
    const offset = 5 * 2 ** 30;
    const { path, folder } = modelWith('w.data', offset);
    truncateSync(join(folder, 'w.data'), offset + 8);
    accepts(path);
  });
});

it('lists the locations of initializers, constants and bodies once', () => {
  const branch = { node: [constant('b', external('', 'b.data'))], output: [{ name: 'b' }] };
  const path = files.write(
    model({
      nodes: [
        constant('a', external('', 'a.data')),
        node('If', ['c'], 'y', { then_branch: { graph: branch }, else_branch: { graph: branch } }),
      ],
      initializers: [external('t', 'a.data'), external('u', 'c.data')],
      outputs: ['y'],
    }),
  );
  const opened = openModel(path);
  expect(externalLocations(opened).sort()).toEqual(['a.data', 'b.data', 'c.data']);
  opened.close();
});

it('reads numbers behind the first 4 GiB', () => {
  const offset = 5 * 2 ** 30;
  const { path, folder } = modelWith('w.data', offset);
  truncateSync(join(folder, 'w.data'), offset);
  writeFileSync(join(folder, 'w.data'), Float32Array.of(1.5, -2), { flag: 'a' });
  const opened = openModel(path);
  const data = new ExternalFiles(opened);
  expect([...new Float32Array(data.source('w.data').read(offset, offset + 8).buffer)]).toEqual([
    1.5, -2,
  ]);
  data.close();
  opened.close();
});

describe('a file', () => {
  it('that shrinks while it is read is an error', async () => {
    const path = files.write(new Uint8Array(100_000), 'shrinking');
    const source = new FileSource(path);
    truncateSync(path, 50_010);
    expect(source.read(50_000, 50_010)).toHaveLength(10);
    const { message } = await failure(() => source.read(90_000, 90_100), 'io');
    expect(message).toContain('while it was read');
    const across = await failure(() => source.read(50_005, 50_100), 'io');
    expect(across.message).toContain('expected bytes 50005 to 50100');
    source.close();
  });

  it.skipIf(process.platform === 'win32')('that is a pipe is refused, not waited for', async () => {
    const pipe = files.fresh('pipe');
    execFileSync('mkfifo', [pipe]);
    const { message } = await failure(() => new FileSource(pipe), 'not-a-file');
    expect(message).toBe(`${pipe} is not a regular file, expected a file`);
  });
});
