import { readdirSync, readlinkSync } from 'node:fs';
import { expect, it } from 'vitest';
import { type OpenedModel, withModel } from '../../../src/adapters/model/opened.js';
import { merge } from '../../../src/commands/merge.js';
import { patch } from '../../../src/commands/patch.js';
import { MessageEdit } from '../../../src/onnx/edit.js';
import { temporaryFolder } from '../../support/files.js';
import { zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();
const path = zooModel('bert-cls-torchscript');

/** Reads more than a page of cache. */
const isClosed = ({ model: { source } }: OpenedModel) => {
  try {
    source.read(0, source.size);
    return false;
  } catch {
    return true;
  }
};

it('is closed when its use is over, with what was made of it', async () => {
  const [opened, edited] = await withModel(path, async (one) => {
    const other = await one.edited(new MessageEdit(one.model.source, one.model.range));
    expect(other.model.source.read(0, 1)).toEqual(one.model.source.read(0, 1));
    return [one, other] as const;
  });
  expect([isClosed(opened), isClosed(edited)]).toEqual([true, true]);
});

it('is closed when its use fails', async () => {
  let opened: OpenedModel | undefined;
  const failing = withModel(path, (one) => {
    opened = one;
    throw new Error('no');
  });
  await expect(failing).rejects.toThrow('no');
  expect(isClosed(opened!)).toBe(true);
});

it('reads tensors from the data files beside the model, and the adapters in it', async () => {
  const path = zooModel('bert-external-data');
  await withModel(path, ({ model, reader, patched, label }) => {
    const tensor = [...model.graph.initializers.values()].find(
      ({ data }) => data.kind === 'external',
    );
    expect(reader.float32(tensor!).length).toBeGreaterThan(0);
    expect([patched.sets, label]).toEqual([[], path]);
  });
});

const descriptors = '/proc/self/fd';
const open = () =>
  readdirSync(descriptors).flatMap((fd) => {
    try {
      return [readlinkSync(`${descriptors}/${fd}`)];
    } catch {
      return [];
    }
  });

it.runIf(process.platform === 'linux')('is opened once for a fold and its check', async () => {
  const patched = folder.fresh();
  await patch(zooModel('mlp-regression'), { output: patched });
  const adapter = zooModel('mlp-regression').replace('model.onnx', 'lora/final');
  const counts: number[] = [];
  const count = () => counts.push(open().filter((one) => one === patched).length);
  await merge(patched, { adapter, scale: 0.5, output: folder.fresh(), onProgress: count });
  expect(new Set(counts)).toEqual(new Set([1]));
  count();
  expect(counts.at(-1)).toBe(0);
});
