/** Images in a folder with a folder for each class. */
import { readdirSync } from 'node:fs';
import { extname, join } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { fileError } from '../../onnx/source.js';

/** An image with what it shows. */
export interface LabelledImage {
  readonly path: string;
  readonly label: string;
}

const EXTENSIONS = ['.png', '.jpg', '.jpeg', '.webp', '.gif', '.avif', '.tif', '.tiff'];

/** Whether the name is that of an image that can be read. */
export function isImageName(name: string): boolean {
  return EXTENSIONS.includes(extname(name).toLowerCase());
}

export interface ImageFolder {
  /** In the order of classes and names. */
  readonly images: readonly LabelledImage[];
  /** Files that are not images. */
  readonly ignored: readonly string[];
}

/**
 * The images of `folder`, whose sub-folders are the classes; images may lie deeper in them.
 * @throws OnnxLoraError `invalid-data` for a folder without classes or a class without images, `io`
 */
export function imageFolder(folder: string): ImageFolder {
  const classes = entriesOf(folder).filter((entry) => entry.isDirectory());
  if (classes.length === 0) {
    throw invalid(folder, 'it has no folders of classes');
  }
  const found = classes.map(({ name }) => filesOf(join(folder, name), name));
  return {
    images: found.flatMap(({ images }) => images),
    ignored: found.flatMap(({ ignored }) => ignored),
  };
}

function filesOf(folder: string, label: string): ImageFolder {
  const paths = [...walk(folder)];
  const images = paths.filter(isImageName).map((path) => ({ path, label }));
  if (images.length === 0) throw invalid(folder, 'the class has no images');
  return { images, ignored: paths.filter((path) => !isImageName(path)) };
}

function* walk(folder: string): Generator<string> {
  for (const entry of entriesOf(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else yield path;
  }
}

/** Without hidden ones; in an order that no file system and no language changes. */
function entriesOf(folder: string) {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter(({ name }) => !name.startsWith('.'))
      .sort((x, y) => (x.name < y.name ? -1 : 1));
  } catch (error) {
    throw fileError(folder, error);
  }
}

function invalid(folder: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${folder}: ${problem}`, {
    hint: `Put images (${EXTENSIONS.join(', ')}) into one folder for each class: data/cat/1.png.`,
  });
}
