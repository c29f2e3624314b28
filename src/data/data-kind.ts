/** The kind of samples at a path, as far as its name says it. */
import { extname } from 'node:path';
import { kindOf } from '../formats/path-kind.js';
import type { Condition, Values } from '../options/option.js';

export const tensorExtensions = ['.safetensors', '.npz'] as const;
export type TensorExtension = (typeof tensorExtensions)[number];

export const rowExtensions = ['.jsonl', '.ndjson', '.csv', '.tsv', '.parquet'] as const;
export type RowExtension = (typeof rowExtensions)[number];

/** Arrays; rows of texts or of paths of images; a folder of images. */
export type DataKind = 'tensors' | 'rows' | 'images';

/** undefined for what is not data by its name: opening it says so. */
export function dataKindOf(path: string): DataKind | undefined {
  const ending = extname(path).toLowerCase();
  if (tensorExtensions.some((one) => one === ending)) return 'tensors';
  if (kindOf(path) === 'folder') return 'images';
  return rowExtensions.some((one) => one === ending) ? 'rows' : undefined;
}

/** The kinds of samples that the options name. */
export function dataKindsIn(options: object): readonly (DataKind | undefined)[] {
  const { data, evalData }: Values = { ...options };
  return [data, evalData].filter((one) => typeof one === 'string').map(dataKindOf);
}

const names = { tensors: 'arrays', rows: 'rows', images: 'a folder of images' } as const;

/** Whether there are samples of one of the kinds, or of one that is not known yet. */
function areAmong(options: Values, kinds: readonly DataKind[]): boolean {
  const found = dataKindsIn(options);
  return found.length === 0 || found.some((kind) => kind === undefined || kinds.includes(kind));
}

function condition(kinds: readonly DataKind[], remedy: string): Condition {
  const others = (Object.keys(names) as DataKind[]).filter((kind) => !kinds.includes(kind));
  return {
    holds: (options) => areAmong(options, kinds),
    otherwise: `on \`data\` that is ${others.map((kind) => names[kind]).join(' or ')}`,
    remedy,
  };
}

const rows = `${rowExtensions.slice(0, -1).join(', ')} or ${rowExtensions.at(-1)} file`;

/** Options of the fields of rows. */
export const ofRows = { when: [condition(['rows'], `give a ${rows}`)] } as const;

/** Options of everything but arrays. */
export const ofRowsAndImages = {
  when: [condition(['rows', 'images'], `give a ${rows}, or a folder of images`)],
};
