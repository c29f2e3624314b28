import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { ImageOptions } from '../../../src/data/images/options.js';
import { planImages } from '../../../src/data/images/plan.js';
import type { Dim, ValueInfo } from '../../../src/onnx/model.js';

const FLOAT = 1;
const INT64 = 7;

function input(shape: Dim[], name = 'pixel_values', dataType = FLOAT): ValueInfo {
  return { name, dataType, shape, field: { start: 0, end: 0 } } as unknown as ValueInfo;
}

function plan(shape: Dim[], options: ImageOptions = {}) {
  return planImages([input(shape)], options).pixels;
}

describe('what a model wants of images', () => {
  it('follows from the shape of its input', () => {
    expect(plan(['n', 3, 224, 256])).toMatchObject({
      ...{ layout: 'nchw', channels: 'rgb', height: 224, width: 256 },
      ...{ mean: [0, 0, 0], std: [1, 1, 1], scale: 1 / 255, fit: 'crop', kernel: 'bilinear' },
    });
    expect(plan(['n', 28, 28, 1])).toMatchObject({ layout: 'nhwc', channels: 'gray', height: 28 });
    expect(plan(['n', 28, 28])).toMatchObject({ layout: 'nhw', channels: 'gray', width: 28 });
    const open = plan(['n', null, 'h', 'w'], { imageSize: '48x320', channels: 'bgr' });
    expect(open).toMatchObject({ layout: 'nchw', channels: 'bgr', height: 48, width: 320 });
    expect(plan(['n', 'h', 'w', 3], { imageSize: '8' })).toMatchObject({ layout: 'nhwc' });
  });

  it('takes one number for all channels, or one for each', () => {
    const { mean, std } = plan(['n', 3, 8, 8], { mean: [0.5], std: [0.1, 0.2, 0.3] });
    expect([mean, std]).toEqual([
      [0.5, 0.5, 0.5],
      [0.1, 0.2, 0.3],
    ]);
  });

  it('finds the images among other inputs', () => {
    const inputs = [input(['n', 3, 8, 8], 'pixels'), input(['n', 4], 'boxes', INT64)];
    expect(planImages(inputs, {}).input).toBe('pixels');
  });

  it.each<[string, Dim[], ImageOptions, string]>([
    ['no images', ['n', 8], {}, 'expected one of floats with four axes'],
    ['five channels', ['n', 5, 8, 8], {}, 'expected 1 or 3 channels'],
    ['gray for a model of colours', ['n', 3, 8, 8], { channels: 'gray' }, 'has 3 channels, gray'],
    ['no size', ['n', 3, 'h', 'w'], {}, 'images of any size'],
    ['another size', ['n', 3, 8, 8], { imageSize: '9' }, '8 x 8, `imageSize` asks for 9 x 9'],
    ['a size in words', ['n', 3, 'h', 'w'], { imageSize: 'big' }, 'height x width'],
    ['two means', ['n', 3, 8, 8], { mean: [0, 1] }, 'mean has 2 numbers, expected one or 3'],
    ['a spread of 0', ['n', 3, 8, 8], { std: [0] }, 'expected numbers above 0'],
  ])('is not known of %s', (_, shape, options, message) => {
    expect(() => plan(shape, options)).toThrow(message);
  });
});

describe('a preprocessor_config.json', () => {
  function planned(config: unknown, options: ImageOptions = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'processor-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const processor = join(folder, 'preprocessor_config.json');
    writeFileSync(processor, typeof config === 'string' ? config : JSON.stringify(config));
    return plan(['n', 3, 'h', 'w'], { processor, ...options });
  }

  it('of ViT: all of the image', () => {
    const vit = { size: { height: 224, width: 224 }, resample: 2 };
    expect(planned({ ...vit, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] })).toEqual({
      ...{ height: 224, width: 224, channels: 'rgb', layout: 'nchw', fit: 'stretch' },
      scaled: { height: 224, width: 224 },
      ...{ kernel: 'bilinear', scale: 1 / 255, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] },
    });
  });

  it('of CLIP: the middle of the image', () => {
    const clip = { size: { shortest_edge: 256 }, do_center_crop: true, resample: 3 };
    expect(planned({ ...clip, crop_size: { height: 224, width: 224 } })).toMatchObject({
      ...{ height: 224, width: 224, fit: 'crop', kernel: 'bicubic' },
      scaled: { height: 256, width: 256 },
    });
    expect(planned({ size: 256, crop_size: 224, do_center_crop: true })).toMatchObject({
      ...{ height: 224, fit: 'crop', scaled: { height: 256, width: 256 } },
    });
  });

  it('may leave pixels as they are', () => {
    const raw = { size: 8, do_rescale: false, do_normalize: false, image_mean: [9] };
    expect(planned(raw)).toMatchObject({ scale: 1, mean: [0, 0, 0], std: [1, 1, 1] });
  });

  it('gives way to what the user says', () => {
    const { mean, height, scaled } = planned(
      { size: 8, image_mean: [1] },
      { mean: [2], imageSize: '4' },
    );
    expect([mean, height, scaled]).toEqual([[2, 2, 2], 4, undefined]);
  });

  it.each([
    ['{', 'is not a preprocessor_config.json'],
    [{ size: -1 }, 'size'],
    [{ size: 8, resample: 5 }, 'resample is 5'],
  ])('is refused: %j', (config, message) => {
    expect(() => planned(config)).toThrow(message);
  });
});
