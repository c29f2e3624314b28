/** External data in a configuration: transformers.js fetches as many files as it names. */
import { posix } from 'node:path';
import { isObject, type Json } from './inside.js';
import type { ModelFolder } from './layout.js';
import { stemOf } from './transformers-js.js';

const KEY = 'transformers.js_config';
const COUNTS = 'use_external_data_format';

/**
 * The configuration with the number of data files that the model has now.
 * @returns the same object where it is right already
 */
export function withDataFiles(config: Json, folder: ModelFolder, files: number): Json {
  const own = isObject(config[KEY]) ? config[KEY] : {};
  const stated = own[COUNTS];
  if (countFor(stated, folder.model) === files) return config;
  const counts = isObject(stated) ? stated : ofParts(stated, folder);
  const changed = { ...counts, [posix.basename(folder.model)]: files };
  return { ...config, [KEY]: { ...own, [COUNTS]: changed } };
}

/** An object has a number for each file, by its name or that without precision; else one is for all. */
function countFor(stated: unknown, model: string): number {
  const one = isObject(stated) ? (stated[posix.basename(model)] ?? stated[stemOf(model)]) : stated;
  return Number(one ?? 0);
}

/** A setting for all files stays so for the others. */
function ofParts(stated: unknown, { parts }: ModelFolder): Json {
  const count = Number(stated ?? 0);
  if (count === 0) return {};
  return Object.fromEntries(parts.map((name) => [posix.basename(name), count]));
}
