/** Turns an image file into the numbers that a model takes. */
import sharp, { type Metadata } from 'sharp';
import { OnnxLoraError } from '../../errors.js';
import { READ_MS } from '../../time-limit.js';
import type { ChannelOrder, Fit, Kernel } from './choices.js';

/** A model's requirements for an image. */
export interface PixelPlan {
  readonly height: number;
  readonly width: number;
  readonly channels: ChannelOrder;
  /** Channels before or after rows and columns, or no axis for them where there is one. */
  readonly layout: 'nchw' | 'nhwc' | 'nhw';
  /**
   * `crop`: the middle of the image, scaled in proportion to cover; `stretch`: all of it, out of
   * proportion; `pad`: all of it in proportion, at the left and the top, with zeros after it.
   */
  readonly fit: Fit;
  /** The size to scale to, where height x width are then cut from the middle; default the same. */
  readonly scaled?: { readonly height: number; readonly width: number } | undefined;
  readonly kernel: Kernel;
  /** A pixel p of 0 to 255 becomes (p·scale − mean) / std, by channel in the model's order. */
  readonly scale: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** The shape of one image: [C, H, W], [H, W, C] or [H, W]. */
export function shapeOf({ height, width, channels, layout }: PixelPlan): number[] {
  const count = channels === 'gray' ? 1 : 3;
  if (layout === 'nhw') return [height, width];
  return layout === 'nchw' ? [count, height, width] : [height, width, count];
}

/**
 * Reads the image at `path` and makes it `shapeOf(plan)`. It is turned as its camera says, and what is
 * transparent is put on white.
 * @throws OnnxLoraError `invalid-data` for a file that is not an image or is cut off
 */
export async function readPixels(path: string, plan: PixelPlan): Promise<Float32Array> {
  const { data, width, height } = await decoded(path, plan);
  return normalized(data, [height, width], plan);
}

/**
 * Of a file, and of what it is scaled to: a photograph has some dozens of megapixels. A compressed file of
 * some hundred bytes may expand to thousands of them, at up to eight bytes each.
 */
export const MAX_PIXELS = 2 ** 26;

/** The longest side that JPEG has: decoders take several rows at a time, and keep more than their pixels. */
const MAX_SIDE = 2 ** 16 - 1;

/** Larger ones are decoded one after the other. */
const LARGE_PIXELS = 2 ** 23;

/** Kinds of images that are read; other kinds may hold programs, or links to other files. */
const FORMATS: readonly (string | undefined)[] = ['png', 'jpeg', 'webp', 'gif', 'heif', 'tiff'];

const SHARP_KERNELS = {
  nearest: 'nearest',
  bilinear: 'linear',
  bicubic: 'cubic',
  lanczos: 'lanczos3',
} as const;

const SHARP_FITS = { crop: 'outside', stretch: 'fill', pad: 'inside' } as const;

async function decoded(path: string, plan: PixelPlan) {
  const { channels, scaled = plan } = plan;
  try {
    const image = sharp(path, { failOn: 'error', limitInputPixels: false });
    const header = await image.metadata();
    checkHeader(header, plan);
    const made = image
      .timeout({ seconds: READ_MS / 1000 })
      .autoOrient()
      .flatten({ background: '#fff' })
      .toColourspace(channels === 'gray' ? 'b-w' : 'srgb')
      .resize({
        ...{ width: scaled.width, height: scaled.height },
        ...{ fit: SHARP_FITS[plan.fit], kernel: SHARP_KERNELS[plan.kernel] },
        // Decoders that shrink while they read save time, and give other pixels.
        fastShrinkOnLoad: false,
      })
      .raw();
    const run = () => made.toBuffer({ resolveWithObject: true });
    const isLarge = header.width * header.height > LARGE_PIXELS;
    const { data, info } = await (isLarge ? oneByOne(run) : run());
    return centre(data, info, plan);
  } catch (error) {
    throw new OnnxLoraError('invalid-data', `${path}: ${(error as Error).message}`, {
      hint: 'The file is damaged or not an image: take it out, or pass over such files with `skipBadRows: true`.',
      cause: error,
    });
  }
}

let last: Promise<unknown> = Promise.resolve();

function oneByOne<T>(run: () => Promise<T>): Promise<T> {
  const result = last.then(run, run);
  last = result.catch(() => undefined);
  return result;
}

/** Before anything is decoded. */
function checkHeader({ format, width, height }: Metadata, plan: PixelPlan): void {
  if (!FORMATS.includes(format)) throw new Error(`images of the kind ${format} are not read`);
  if (width * height > MAX_PIXELS) throw new Error(tooLarge('it has', width, height));
  if (Math.max(width, height) > MAX_SIDE) {
    throw new Error(`it has ${width} x ${height} pixels, at most ${MAX_SIDE} a side are read`);
  }
  if (plan.fit !== 'crop') return;
  // Narrow ones cover a square by growing.
  const { scaled = plan } = plan;
  const side = Math.max(scaled.width, scaled.height);
  const factor = side / Math.min(width, height);
  const [wide, high] = [Math.ceil(width * factor), Math.ceil(height * factor)];
  if (wide * high > MAX_PIXELS) throw new Error(tooLarge('scaled to be cut, it has', wide, high));
}

function tooLarge(what: string, width: number, height: number): string {
  return `${what} ${width} x ${height} pixels, at most ${MAX_PIXELS} are read`;
}

/** Cuts height x width from the middle, where the image is larger. */
function centre(
  data: Uint8Array,
  info: { readonly width: number; readonly height: number; readonly channels: number },
  { width, height }: PixelPlan,
) {
  const top = Math.max(0, Math.floor((info.height - height) / 2));
  const left = Math.max(0, Math.floor((info.width - width) / 2));
  const rows = Math.min(height, info.height);
  const columns = Math.min(width, info.width);
  const cut = new Uint8Array(rows * columns * info.channels);
  for (let y = 0; y < rows; y++) {
    const from = ((top + y) * info.width + left) * info.channels;
    cut.set(data.subarray(from, from + columns * info.channels), y * columns * info.channels);
  }
  return { data: cut, width: columns, height: rows };
}

/** The area after the image stays zero: zero after the normalization, which adds nothing. */
function normalized(
  pixels: Uint8Array,
  [rows, columns]: readonly [number, number],
  plan: PixelPlan,
): Float32Array {
  const { height, width, layout, scale, mean, std } = plan;
  const count = plan.channels === 'gray' ? 1 : 3;
  const values = new Float32Array(count * height * width);
  for (let channel = 0; channel < count; channel++) {
    const source = plan.channels === 'bgr' ? count - 1 - channel : channel;
    const [shift, spread] = [mean[channel]!, std[channel]!];
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const at =
          layout === 'nhwc'
            ? (y * width + x) * count + channel
            : (channel * height + y) * width + x;
        const pixel = pixels[(y * columns + x) * count + source]!;
        values[at] = (pixel * scale - shift) / spread;
      }
    }
  }
  return values;
}
