import { join } from 'node:path';
import { planImages } from '../../src/data/images/plan.js';
import { damageJsonText } from '../mutate/json.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const FILE = 'preprocessor_config.json';

const config = {
  size: { shortest_edge: 256 },
  crop_size: { height: 224, width: 224 },
  do_resize: true,
  do_center_crop: true,
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
  resample: 3,
};

/** `--processor`: what a model wants of images. */
export const processorReader: Reader = {
  seeds: () => [filesOf({ [FILE]: JSON.stringify(config) })],
  mutate: (files, random) =>
    withFile(files, FILE, (bytes) =>
      Buffer.from(damageJsonText(Buffer.from(bytes).toString(), random)),
    ),
  run: (folder) =>
    planImages([{ name: 'x', dataType: 1, shape: [null, 3, null, null] }] as never, {
      processor: join(folder, FILE),
    }),
};
