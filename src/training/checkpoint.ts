/** Checkpoints: everything a run needs to go on, bit for bit, in one safetensors file. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { OnnxLoraError } from '../errors.js';
import { openSafetensors, type SafetensorsFile } from '../formats/safetensors.js';
import { safetensorsPieces } from '../formats/safetensors-output.js';
import { fileError } from '../onnx/source.js';
import { writeFiles } from '../onnx/write.js';
import { ownOptimizerOptions } from './optimizers/index.js';

const FORMAT = 'onnx-lora-checkpoint';
const FILE = 'checkpoint.safetensors';

const losses = v.object({ first: v.number(), last: v.number(), best: v.number() });

const progress = v.object({
  version: v.literal(1),
  /** Steps done. */
  step: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** Those that moved something; all of them where it is not said. */
  updates: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  /** The options of the run that its numbers depend on. */
  settings: v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])),
  losses: v.optional(losses),
  /** The scale of the loss, where one was asked for. */
  lossScale: v.optional(v.object({ value: v.number(), good: v.number(), skipped: v.number() })),
  /** The best evaluation, and how many followed it. */
  best: v.optional(v.object({ step: v.number(), loss: v.number(), since: v.number() })),
  /** The last evaluation. */
  evaluation: v.optional(
    // JSON has null for a measure that is not a number.
    v.object({
      step: v.number(),
      eval: v.record(
        v.string(),
        v.pipe(
          v.nullable(v.number()),
          v.transform((x) => x ?? Number.NaN),
        ),
      ),
    }),
  ),
});

/** The progress of a run, without its numbers. */
export type RunProgress = v.InferOutput<typeof progress>;

/** Settings by name. */
export type Settings = RunProgress['settings'];

export interface Checkpoint {
  readonly progress: RunProgress;
  /** State vectors by name; `best` holds theta of the best evaluation. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
}

/** The checkpoint file of a folder. */
export function checkpointFile(folder: string): string {
  return join(folder, FILE);
}

export function hasCheckpoint(folder: string): boolean {
  return existsSync(checkpointFile(folder));
}

/**
 * Writes a checkpoint; the one before stays until the new one is whole.
 * @throws OnnxLoraError `io`
 */
export async function writeCheckpoint(folder: string, checkpoint: Checkpoint): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw fileError(folder, error);
  }
  const tensors = [...checkpoint.vectors].map(([name, values]) => ({
    name,
    dtype: 'float32' as const,
    shape: [values.length],
    data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
  }));
  const metadata = {
    format: FORMAT,
    progress: JSON.stringify(checkpoint.progress),
    checksum: checksumOf(tensors.map(({ data }) => data)),
  };
  const pieces = safetensorsPieces(tensors, metadata);
  await writeFiles([{ path: checkpointFile(folder), pieces }], [], { force: true });
}

/**
 * Reads the checkpoint of a folder.
 * @throws OnnxLoraError `checkpoint` for a file that is not a checkpoint or does not fit `size` and `names`
 */
export function readCheckpoint(folder: string, names: readonly string[], size: number): Checkpoint {
  const path = checkpointFile(folder);
  const file = openCheckpoint(path);
  try {
    const parsed = parseProgress(path, file.metadata);
    const present = [...names, ...(file.tensors.has('best') ? ['best'] : [])];
    const vectors = present.map((name) => {
      const shape = file.tensors.get(name)?.shape;
      if (shape?.length !== 1 || shape[0] !== size) {
        throw damaged(path, `${name} has ${shape ? `[${shape}]` : 'no'} numbers, expected ${size}`);
      }
      return [name, file.readFloat32(name).slice()] as const;
    });
    const bytes = [...file.tensors.keys()].map((name) => file.read(name));
    if (file.metadata.checksum !== checksumOf(bytes)) {
      throw damaged(path, 'its numbers are not the ones that were written');
    }
    return { progress: parsed, vectors: new Map(vectors) };
  } finally {
    file.close();
  }
}

function openCheckpoint(path: string): SafetensorsFile {
  try {
    return openSafetensors(path);
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'invalid-adapter') {
      throw damaged(path, error.message.replace(`${path}: `, ''));
    }
    throw error;
  }
}

function checksumOf(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

function parseProgress(path: string, metadata: Readonly<Record<string, string>>): RunProgress {
  if (metadata.format !== FORMAT) throw damaged(path, 'it is not a checkpoint of onnx-lora');
  try {
    return v.parse(progress, JSON.parse(metadata.progress ?? ''));
  } catch (error) {
    throw damaged(path, (error as Error).message);
  }
}

function damaged(path: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('checkpoint', `${path} cannot be resumed: ${problem}`, {
    hint: 'Start anew with `force: true`, or name another folder with `checkpoint`.',
  });
}

// A run that diverged can only go on with other values of these; other samples to evaluate train nothing else.
const ADJUSTABLE = new Set([
  ...Object.keys(ownOptimizerOptions),
  ...['lrRatio', 'schedule', 'warmup', 'clip', 'evalSamples'],
]);

// Settings that older checkpoints do not name, with what they were then.
const SINCE: Settings = { lrRatio: 1 };

/**
 * Checks that a run is the one that a checkpoint was taken of.
 * @param force lets the settings of the optimizer differ, and the samples that are evaluated
 * @returns those that do, in words
 * @throws OnnxLoraError `checkpoint` naming the settings that differ
 */
export function checkSettings(
  folder: string,
  recorded: Settings,
  now: Settings,
  force: boolean,
): string[] {
  const saved = { ...SINCE, ...recorded };
  // Older checkpoints do not name these: an option of an optimizer that came later, what is evaluated.
  const isLater = (key: string) =>
    !Object.hasOwn(saved, key) && (key in ownOptimizerOptions || key === 'evalSamples');
  const keys = Object.keys({ ...saved, ...now }).filter((key) => !isLater(key));
  // A setting that nobody gave is null, or has no name in the checkpoint at all.
  const different = keys.filter((key) => (saved[key] ?? null) !== (now[key] ?? null));
  const changes = different.map((key) => `${key} was ${saved[key]}, is ${now[key]}`);
  const areAdjustable = different.every((key) => ADJUSTABLE.has(key));
  if (changes.length === 0 || (force && areAdjustable)) return changes;
  const listed = changes.join('; ');
  const otherwise = areAdjustable
    ? 'go on with the new ones by `resume: true, force: true`'
    : 'start anew with `force: true` instead of `resume: true`';
  throw new OnnxLoraError('checkpoint', `${checkpointFile(folder)} is of another run: ${listed}`, {
    hint: `Resume with the options the run was started with, or ${otherwise}.`,
  });
}
