/** An image model's requirements, from its inputs, its `preprocessor_config.json` and the user. */
import * as v from 'valibot';
import { OnnxLoraError } from '../../errors.js';
import { readWholeFile } from '../../formats/whole-file.js';
import type { Kernel } from './choices.js';
import type { PixelPlan } from './pixels.js';

/** Such a file has a kilobyte. */
const MAX_BYTES = 2 ** 20;

const channel = v.pipe(v.number(), v.finite());
const side = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(16384));
const size = v.union([
  side,
  v.object({ height: side, width: side }),
  v.object({ shortest_edge: side }),
]);

/** The fields of transformers' image processors that say how pixels are made. */
const config = v.object({
  size: v.optional(size),
  crop_size: v.optional(size),
  do_resize: v.optional(v.boolean(), true),
  do_center_crop: v.optional(v.boolean(), false),
  do_rescale: v.optional(v.boolean(), true),
  rescale_factor: v.optional(channel, 1 / 255),
  do_normalize: v.optional(v.boolean(), true),
  image_mean: v.optional(v.array(channel)),
  image_std: v.optional(v.array(channel)),
  /** Of Pillow. */
  resample: v.optional(v.number()),
});

type Config = v.InferOutput<typeof config>;

/** Pillow's numbers. */
const kernels: Readonly<Record<number, Kernel>> = {
  0: 'nearest',
  1: 'lanczos',
  2: 'bilinear',
  3: 'bicubic',
};

type Optional<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** Settings of a `preprocessor_config.json`; missing ones stay open. */
export type ProcessorPlan = Optional<
  Pick<PixelPlan, 'height' | 'width' | 'fit' | 'scaled' | 'kernel' | 'scale' | 'mean' | 'std'>
>;

/**
 * Reads a `preprocessor_config.json` as transformers writes it for an image model.
 * @throws OnnxLoraError `invalid-data` for another file, `unsupported` for a resampling that is
 * not known, and those of reading
 */
export function readProcessor(path: string): ProcessorPlan {
  const parsed = v.safeParse(config, parse(path));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw invalid(path, `${v.getDotPath(issue) ?? 'it'}: ${issue.message}`);
  }
  const { do_rescale, rescale_factor, do_normalize, image_mean, image_std } = parsed.output;
  return {
    ...geometryOf(parsed.output),
    ...kernelOf(path, parsed.output),
    scale: do_rescale ? rescale_factor : 1,
    ...(do_normalize ? { mean: image_mean, std: image_std } : { mean: [0], std: [1] }),
  };
}

/** A single number is the shorter side where the middle is cut out, and both sides elsewhere. */
function geometryOf({ size, crop_size, do_resize, do_center_crop }: Config): ProcessorPlan {
  const scaled = do_resize ? sidesOf(size) : undefined;
  const cut = do_center_crop ? sidesOf(crop_size ?? size) : undefined;
  const inProportion =
    typeof size === 'number' ? do_center_crop : size !== undefined && 'shortest_edge' in size;
  return { ...(cut ?? scaled), scaled, fit: inProportion || !scaled ? 'crop' : 'stretch' };
}

function sidesOf(value: Config['size']): { height: number; width: number } | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'number') return { height: value, width: value };
  if ('height' in value) return value;
  return { height: value.shortest_edge, width: value.shortest_edge };
}

function kernelOf(path: string, { resample }: Config): { kernel?: Kernel } {
  if (resample === undefined) return {};
  const kernel = kernels[resample];
  if (kernel) return { kernel };
  throw new OnnxLoraError('unsupported', `${path}: resample is ${resample}, expected 0 to 3`, {
    hint: 'Leave it out and name a kernel with `resample`.',
  });
}

function parse(path: string): unknown {
  const text = readWholeFile(path, MAX_BYTES).toString();
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(path, (error as Error).message);
  }
}

function invalid(path: string, problem: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-data',
    `${path} is not a preprocessor_config.json: ${problem}`,
    {
      hint: 'It lies beside the model on the hub. Or give `imageSize`, `mean` and `std` yourself.',
    },
  );
}
