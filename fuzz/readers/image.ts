import { join } from 'node:path';
import sharp from 'sharp';
import { readPixels } from '../../src/data/images/pixels.js';
import { damageBytes } from '../mutate/bytes.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const FILE = 'image.png';

/** Images of every kind that is read. */
export const imageReader: Reader = {
  async seeds() {
    const create = { width: 40, height: 30, channels: 4, background: '#a1b2c380' } as const;
    const image = sharp({ create });
    const made = [image.png(), image.png({ progressive: true }), image.jpeg(), image.webp()].concat(
      ...[image.gif(), image.tiff(), image.avif({ effort: 0 })],
    );
    const files = await Promise.all(made.map((one) => one.clone().toBuffer()));
    return files.map((bytes) => filesOf({ [FILE]: bytes }));
  },
  mutate: (files, random) => withFile(files, FILE, (bytes) => damageBytes(bytes, random)),
  run: (folder) =>
    readPixels(join(folder, FILE), {
      ...{ height: 16, width: 16, channels: 'rgb', layout: 'nchw', fit: 'crop' },
      ...{ kernel: 'bilinear', scale: 1, mean: [0, 0, 0], std: [1, 1, 1] },
    }),
};
