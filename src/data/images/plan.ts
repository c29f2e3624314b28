/** Which input of a model takes images, and what it wants of them. */
import { OnnxLoraError } from '../../errors.js';
import { findDataType, isFloating } from '../../onnx/dtype.js';
import type { Dim, ValueInfo } from '../../onnx/model.js';
import { type ImageOptions, pixelDefaults } from './options.js';
import type { PixelPlan } from './pixels.js';
import { type ProcessorPlan, readProcessor } from './processor.js';

/** Numbers fed for one image. Models take a megapixel, those of satellite images some dozens. */
const MAX_INPUT_PIXELS = 2 ** 26;

export interface ImagePlan {
  /** The model's input. */
  readonly input: string;
  readonly pixels: PixelPlan;
  /** Whether neither the user nor a file said how numbers are scaled. */
  readonly isUnscaled: boolean;
}

/**
 * Plans the images of a model with these inputs.
 * @throws OnnxLoraError `invalid-argument` where the inputs and the options leave something open or
 * contradict one another
 */
export function planImages(inputs: readonly ValueInfo[], options: ImageOptions): ImagePlan {
  const { name, shape } = imageInput(inputs);
  const stored = options.processor === undefined ? {} : readProcessor(options.processor);
  const { layout, channelDim, sides } = layoutOf(name, shape);
  const channels = options.channels ?? (channelDim === 1 ? 'gray' : 'rgb');
  const count = channels === 'gray' ? 1 : 3;
  if (typeof channelDim === 'number' && channelDim !== count) {
    throw invalid(`the input ${name} has ${channelDim} channels, ${channels} has ${count}`);
  }
  const size = sizeOf(name, sides, options, stored);
  const largest = Math.max(...[size, stored.scaled ?? size].map((one) => one.height * one.width));
  if (largest > MAX_INPUT_PIXELS) {
    throw invalid(`images are to have ${largest} pixels, at most ${MAX_INPUT_PIXELS} are made`);
  }
  const pixels: PixelPlan = {
    ...size,
    ...{ channels, layout, fit: options.fit ?? stored.fit ?? pixelDefaults.fit },
    ...(options.imageSize === undefined ? { scaled: stored.scaled } : {}),
    kernel: options.resample ?? stored.kernel ?? pixelDefaults.resample,
    scale: stored.scale ?? 1 / 255,
    mean: byChannel('mean', options.mean ?? stored.mean ?? [pixelDefaults.mean], count),
    std: byChannel('std', options.std ?? stored.std ?? [pixelDefaults.std], count),
  };
  if (pixels.std.some((value) => !(value > 0))) {
    throw invalid(`std is ${pixels.std.join(', ')}, expected numbers above 0`);
  }
  const isUnscaled = [options.mean, options.std, options.processor].every((x) => x === undefined);
  return { input: name, pixels, isUnscaled };
}

/** Four axes, or three for gray images without an axis of channels. */
function imageInputs(inputs: readonly ValueInfo[]): readonly ValueInfo[] {
  const ofRank = (rank: number) =>
    inputs.filter(({ shape, dataType }) => {
      const dtype = findDataType(dataType);
      return shape?.length === rank && dtype !== undefined && isFloating(dtype);
    });
  return [ofRank(4), ofRank(3)].find((found) => found.length > 0) ?? [];
}

function imageInput(inputs: readonly ValueInfo[]) {
  const [first, ...others] = imageInputs(inputs);
  if (first && others.length === 0) return { name: first.name, shape: first.shape! };
  const found = inputs.map(({ name, shape }) => `${name} [${shapeText(shape)}]`).join(', ');
  throw invalid(
    `the model's inputs are ${found}, expected one of floats with four axes (or three) for images`,
  );
}

/** Whether a model takes images: floats with the axes of one, and no texts. */
export function takesImages(inputs: readonly ValueInfo[]): boolean {
  return imageInputs(inputs).length > 0;
}

const CHANNEL_COUNTS: readonly Dim[] = [1, 3];

interface Layout {
  readonly layout: PixelPlan['layout'];
  readonly channelDim: Dim;
  readonly sides: readonly [Dim, Dim];
}

/** Channels are the axis of size 1 or 3; in front where both ends may be it. */
function layoutOf(name: string, shape: readonly Dim[]): Layout {
  if (shape.length === 3) {
    return { layout: 'nhw', channelDim: 1, sides: [shape[1] ?? null, shape[2] ?? null] };
  }
  const [, second, third, fourth] = shape as [Dim, Dim, Dim, Dim];
  if (CHANNEL_COUNTS.includes(second) || typeof second !== 'number') {
    const isLast = typeof second !== 'number' && CHANNEL_COUNTS.includes(fourth);
    if (!isLast) {
      return { layout: 'nchw', channelDim: second, sides: [third, fourth] };
    }
  }
  if (CHANNEL_COUNTS.includes(fourth) || typeof fourth !== 'number') {
    return { layout: 'nhwc', channelDim: fourth, sides: [second, third] };
  }
  throw invalid(`the input ${name} is [${shapeText(shape)}], expected 1 or 3 channels`);
}

function sizeOf(
  name: string,
  sides: readonly [Dim, Dim],
  { imageSize }: ImageOptions,
  stored: ProcessorPlan,
): { height: number; width: number } {
  const asked = imageSize === undefined ? undefined : parseSize(imageSize);
  const [height, width] = [asked?.height ?? stored.height, asked?.width ?? stored.width];
  const fixed = sides.map((dim, i) => {
    const wanted = [height, width][i];
    if (typeof dim !== 'number') return wanted;
    if (wanted === undefined || wanted === dim) return dim;
    throw invalid(
      `the input ${name} takes images of ${shapeText(sides, ' x ')}, ${asked ? '`imageSize`' : 'the processor'} asks for ${height} x ${width}`,
    );
  });
  if (fixed[0] !== undefined && fixed[1] !== undefined)
    return { height: fixed[0], width: fixed[1] };
  throw invalid(
    `the input ${name} takes images of any size (${shapeText(sides, ' x ')})`,
    'Give the size with `imageSize`, as in 224 or 48x320 (height x width).',
  );
}

function parseSize(text: string): { height: number; width: number } {
  const match = /^(\d{1,5})(?:x(\d{1,5}))?$/.exec(text);
  const [height, width] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
  if (height > 0 && width > 0) return { height, width };
  throw invalid(
    `image size is ${JSON.stringify(text)}, expected a number or height x width`,
    'As in 224 or 48x320.',
  );
}

function byChannel(what: string, values: readonly number[], count: number): readonly number[] {
  if (values.length === 1) return Array.from({ length: count }, () => values[0]!);
  if (values.length === count) return values;
  throw invalid(`${what} has ${values.length} numbers, expected one or ${count}`);
}

function shapeText(shape: readonly Dim[] | null, separator = ', '): string {
  return shape?.map((dim) => dim ?? '?').join(separator) ?? '?';
}

function invalid(message: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint });
}
