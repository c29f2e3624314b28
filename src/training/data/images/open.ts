/** Opens images as samples of one model and one loss. */
import { OnnxLoraError } from '../../../errors.js';
import { Characters } from '../characters.js';
import type { Dataset } from '../dataset.js';
import type { DataRequest } from '../request.js';
import { ImageDataset } from './dataset.js';
import { readPixels } from './pixels.js';
import { type ImagePlan, planImages } from './plan.js';
import { type TargetKind, targetKind } from './targets.js';

/** An image with what it shows, and where that is said. */
export interface LabelledImage {
  readonly path: string;
  readonly label: string;
  /** `data.csv, line 7`; undefined where the path says it all. */
  readonly source?: string | undefined;
}

/**
 * The images as a dataset.
 * @param label what to call them in a message: the path of the folder or file
 * @param classes names in their order
 * @throws OnnxLoraError `invalid-argument` where model and options do not say what images become;
 * `invalid-data` naming the image, for a label that is not known, and with `skipBadRows` where no image
 * is left; `aborted`
 */
export async function openImages(
  label: string,
  images: readonly LabelledImage[],
  classes: readonly string[],
  request: DataRequest,
): Promise<Dataset> {
  const plan = planImages(request.inputs, request);
  const { dictionary, blank, loss, onNote } = request;
  const characters = dictionary === undefined ? undefined : Characters.read(dictionary, blank);
  const kind = targetKind(loss, classes, characters);
  if (plan.isUnscaled) onNote?.(UNSCALED);
  const { kept, values, skipped } = await readable(label, images, plan, kind, request);
  return new ImageDataset({
    label,
    paths: kept.map(({ path }) => path),
    input: plan.input,
    pixels: plan.pixels,
    targets: kind.targets(values),
    classes: loss === 'cross-entropy' ? classes : undefined,
    skipped,
  });
}

const UNSCALED =
  'pixels are fed as 0 to 1: say --mean and --std, or --processor, if the model was trained on others';

type Value = Parameters<TargetKind['targets']>[0][number];

async function readable(
  label: string,
  images: readonly LabelledImage[],
  plan: ImagePlan,
  kind: TargetKind,
  request: DataRequest,
) {
  const kept: LabelledImage[] = [];
  const values: Value[] = [];
  for (const [i, image] of images.entries()) {
    const value = await labelOf(image, plan, kind, request);
    if (value === undefined) continue;
    kept.push(image);
    values.push(value);
    request.onProgress?.({ phase: 'reading', done: i + 1, total: images.length, unit: 'samples' });
    if (request.signal?.aborted) throw new OnnxLoraError('aborted', `interrupted at ${image.path}`);
  }
  if (kept.length > 0 || images.length === 0) {
    return { kept, values, skipped: images.length - kept.length };
  }
  throw new OnnxLoraError(
    'invalid-data',
    `${label}: none of its ${images.length} images can be read`,
    {
      hint: 'Leave --skip-bad-rows out to see why.',
    },
  );
}

/** What the image is labelled with; undefined for one that is passed over. */
async function labelOf(
  { path, label, source }: LabelledImage,
  { pixels }: ImagePlan,
  kind: TargetKind,
  { skipBadRows }: DataRequest,
): Promise<Value | undefined> {
  const encoded = kind.encode(label);
  if ('problem' in encoded) {
    if (skipBadRows) return undefined;
    throw new OnnxLoraError('invalid-data', `${source ?? path}: ${encoded.problem}`, {
      hint: 'Correct the label, or pass over such images with --skip-bad-rows.',
    });
  }
  // Those that are not passed over are read when the data are checked, where a fault has its message.
  const isSound = !skipBadRows || (await canRead(() => readPixels(path, pixels)));
  return isSound ? encoded.value : undefined;
}

async function canRead(read: () => Promise<unknown>): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'invalid-data') return false;
    throw error;
  }
}
