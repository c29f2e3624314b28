import { join } from 'node:path';
import onnxProto from 'onnx-proto';
import { merge } from '../../src/commands/merge.js';
import { MODEL } from '../models/reader.js';
import { patchedModels } from '../models/seeds.js';
import { damageBytes } from '../mutate/bytes.js';
import { oddInteger, oddName } from '../mutate/odd.js';
import type { Random } from '../random.js';
import { type Files, filesOf, type Reader, withFile } from '../reader.js';

const { ModelProto } = onnxProto.onnx;
const DATA = 'weights.bin';

/** Declarations of external data, and the file that they are about. */
export const externalDataReader: Reader = {
  seeds: async () => (await patchedModels()).map(external),
  mutate: (files, random) => {
    if (random.chance(0.1)) return withFile(files, DATA, (bytes) => damageBytes(bytes, random));
    return withFile(files, MODEL, (bytes) => damageEntries(bytes, random));
  },
  run: (folder) =>
    merge(join(folder, MODEL), { verify: false, output: join(folder, 'merged.onnx') }),
};

/** The model with its initializers in a file beside it. */
function external(bytes: Uint8Array): Files {
  const decoded = ModelProto.decode(bytes);
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const tensor of decoded.graph?.initializer ?? []) {
    if (!tensor.rawData?.length) continue;
    data.push(tensor.rawData.slice());
    const entries = { location: DATA, offset, length: tensor.rawData.length };
    tensor.externalData = Object.entries(entries).map(([key, value]) => ({
      key,
      value: `${value}`,
    }));
    tensor.dataLocation = 1;
    offset += tensor.rawData.length;
    tensor.rawData = null;
  }
  return filesOf({ [MODEL]: ModelProto.encode(decoded).finish(), [DATA]: Buffer.concat(data) });
}

function damageEntries(bytes: Uint8Array, random: Random): Uint8Array {
  const decoded = ModelProto.decode(bytes);
  const tensors = (decoded.graph?.initializer ?? []).filter((one) => one.externalData?.length);
  for (let i = random.below(3); i >= 0; i--) {
    const entries = random.pick(tensors).externalData!;
    const at = random.below(entries.length);
    const { key } = entries[at]!;
    const value = key === 'location' ? locationLike(random) : numberLike(random);
    const kind = random.below(6);
    if (kind === 0) entries.splice(at, 1);
    else if (kind === 1)
      entries.push({ key: oddName(['offset', 'length', 'checksum'], random), value });
    else entries[at] = { key: key ?? '', value };
  }
  return ModelProto.encode(decoded).finish();
}

function locationLike(random: Random): string {
  const known = [
    DATA,
    MODEL,
    `./${DATA}`,
    `../${DATA}`,
    '/etc/passwd',
    'C:\\x',
    `${DATA}/x`,
    'case',
  ];
  return oddName([...known, 'merged.onnx', 'merged.onnx.data', '.', 'x'.repeat(300)], random);
}

function numberLike(random: Random): string {
  const integer = `${oddInteger(random)}`;
  return random.pick([
    integer,
    integer,
    '',
    ' 1',
    '1.5',
    '-0',
    '0x10',
    '1e3',
    '9'.repeat(30),
    'NaN',
  ]);
}
