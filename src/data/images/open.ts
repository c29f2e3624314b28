/** Opens images as samples of one model. */
import { dirname, resolve } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { kindOf } from '../../formats/path-kind.js';
import type { Dataset } from '../dataset.js';
import type { DataRequest } from '../request.js';
import { BadRow } from '../rows/bad-row.js';
import { fieldOf, firstOf, labelNames, textIn } from '../rows/fields.js';
import type { Row } from '../rows/row.js';
import { RowFile } from '../rows/row-file.js';
import { ImageDataset } from './dataset.js';
import { imageFolder } from './files.js';
import { type PixelPlan, readPixels } from './pixels.js';
import { planImages } from './plan.js';
import { type TargetCollector, targetCollector } from './targets.js';

/**
 * Opens a folder with a folder of images for each class.
 * @throws OnnxLoraError `invalid-argument` where model and options do not say what images become,
 * `unsupported` for labels that images cannot have, `invalid-data` naming folder or image,
 * `aborted`, and those of reading
 */
export async function openImageFolder(folder: string, request: DataRequest): Promise<Dataset> {
  const samples = new ImageSamples(folder, request);
  const { images, ignored } = imageFolder(folder);
  if (ignored.length > 0) {
    request.onNote?.(`${folder}: ${ignored.length} files are not images, such as ${ignored[0]}`);
  }
  for (const { path, label } of images) samples.addOf(path, label);
  return samples.dataset();
}

/**
 * Opens a file of rows that name images, by paths from the file's own folder, and their labels.
 * @throws OnnxLoraError as {@link openImageFolder}, naming file and line of a bad row
 */
export async function openImageRows(path: string, request: DataRequest): Promise<Dataset> {
  const samples = new ImageSamples(path, request);
  let fields: Fields | undefined;
  const add = (row: Row) => {
    fields ??= chooseFields(row, request);
    const image = resolve(dirname(path), textIn(row, fields.image));
    if (kindOf(image) !== 'file') {
      throw new BadRow(`the image ${image} does not exist`);
    }
    samples.add(image, fieldOf(row, fields.label));
  };
  const file = await RowFile.open(path, add, request);
  file.close();
  return samples.dataset(file.skipped);
}

interface Fields {
  readonly image: string;
  readonly label: string;
}

const IMAGE_NAMES = ['image', 'image_path', 'path', 'file', 'file_name', 'filename'];

function chooseFields(row: Row, { imageField, labelField, labelKind }: DataRequest): Fields {
  const image = imageField ?? firstOf(row, IMAGE_NAMES);
  const names = labelKind === 'spelling' ? ['text', ...labelNames] : labelNames;
  const label = labelField ?? firstOf(row, names);
  if (image !== undefined && label !== undefined) return { image, label };
  const [what, option] =
    image === undefined ? ['an image', 'imageField'] : ['a label', 'labelField'];
  throw new OnnxLoraError(
    'invalid-argument',
    `none of the fields is known to hold ${what}; the first row has: ${Object.keys(row).join(', ')}`,
    { hint: `Name it with \`${option}\`.` },
  );
}

/** Gathers images and their labels, and makes a dataset of those that can be read. */
class ImageSamples {
  private readonly paths: string[] = [];
  private readonly plan: ReturnType<typeof planImages>;
  private readonly targets: TargetCollector;
  private skipped = 0;

  constructor(
    private readonly label: string,
    private readonly request: DataRequest,
  ) {
    this.plan = planImages(request.inputs, request);
    this.targets = targetCollector(request);
    if (this.plan.isUnscaled) request.onNote?.(UNSCALED);
  }

  /** @throws BadRow for what is not a label */
  add(path: string, label: unknown): void {
    this.targets.add(label);
    this.paths.push(path);
  }

  /** An image whose path says what it shows. */
  addOf(path: string, label: string): void {
    try {
      this.add(path, label);
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
      if (!this.request.skipBadRows) {
        throw new OnnxLoraError('invalid-data', `${path}: ${error.message}`, { hint: error.hint });
      }
      this.skipped++;
    }
  }

  /** @param skipped rows that were left out before */
  async dataset(skipped = 0): Promise<Dataset> {
    const { label, paths, plan } = this;
    const kept = await this.readable();
    const targets = this.targets.finish(kept);
    return new ImageDataset({
      ...{ label, input: plan.input, pixels: plan.pixels, targets },
      paths: kept.map((i) => paths[i]!),
      skipped: skipped + this.skipped + paths.length - kept.length,
      // Only spelling has images that are bad for what they hold.
      mayLeaveOut: this.request.skipBadRows && this.request.labelKind === 'spelling',
    });
  }

  /**
   * The numbers of images to keep: all of them, unless bad ones are to be left out. Those of a strict
   * run are read when the data are checked.
   */
  private async readable(): Promise<number[]> {
    const { paths, plan, label, request } = this;
    const all = paths.map((_, i) => i);
    if (!request.skipBadRows) return all;
    const kept: number[] = [];
    for (const i of all) {
      if (await canRead(paths[i]!, plan.pixels)) kept.push(i);
      const total = paths.length;
      request.onProgress?.({ phase: 'reading images', done: i + 1, total, unit: 'samples' });
      if (request.signal?.aborted) throw new OnnxLoraError('aborted', `interrupted at ${paths[i]}`);
    }
    if (kept.length > 0) return kept;
    throw new OnnxLoraError('invalid-data', `${label}: none of its images can be read`, {
      hint: 'Leave `skipBadRows` out to see why.',
    });
  }
}

const UNSCALED =
  'pixels are fed as 0 to 1: give `mean` and `std`, or `processor`, if the model was trained on others';

async function canRead(path: string, pixels: PixelPlan): Promise<boolean> {
  try {
    await readPixels(path, pixels);
    return true;
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'invalid-data') return false;
    throw error;
  }
}
