/** The models of test/fixtures/zoo with what is recorded beside them (see its README). */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Tensor } from 'onnxruntime-node';
import { openSafetensors, type SafetensorsFile } from '../../src/formats/safetensors.js';
import { toIntegers } from '../../src/onnx/dtype.js';
import { feed, type Values } from './run.js';

export const ZOO = join(import.meta.dirname, '../fixtures/zoo');

/** Every model; `golden` cases have adapters and numbers from PEFT. */
export const zooCases: readonly string[] = readdirSync(ZOO, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && entry.name !== 'adapters-extra')
  .map(({ name }) => name)
  .sort();
export const goldenCases = zooCases.filter((name) => readdirSync(join(ZOO, name)).includes('lora'));

export function zooModel(name: string): string {
  return join(ZOO, name, 'model.onnx');
}

export interface ZooMap {
  readonly prefix: string;
  readonly modules: Readonly<
    Record<
      string,
      {
        readonly in_features: number;
        readonly out_features: number;
        readonly nodes: readonly { readonly node: string; readonly op: string }[];
        readonly packed?: object;
      }
    >
  >;
}

export function zooJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(ZOO, ...path), 'utf8')) as T;
}

/** Reads a recorded file and closes it again. */
export function zooTensors<T>(path: readonly string[], read: (file: SafetensorsFile) => T): T {
  const file = openSafetensors(join(ZOO, ...path));
  try {
    return read(file);
  } finally {
    file.close();
  }
}

/** The recorded input batch of a case. */
export function zooFeeds(name: string): Record<string, Tensor> {
  return zooTensors([name, 'io.safetensors'], (file) => {
    const feeds: Record<string, Tensor> = {};
    for (const [key, { dtype, shape }] of file.tensors) {
      if (!key.startsWith('input.')) continue;
      const count = shape.reduce((a, b) => a * b, 1);
      const values = dtype.startsWith('float')
        ? file.readFloat64(key)
        : Array.from(toIntegers(dtype, file.read(key).slice(), count), Number);
      feeds[key.slice('input.'.length)] = feed(shape, values, dtype);
    }
    return feeds;
  });
}

export function zooValues(file: SafetensorsFile, key: string): Values {
  return { dims: file.tensors.get(key)!.shape, data: file.readFloat64(key).slice() };
}
