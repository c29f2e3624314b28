/** Adapters as Hugging Face PEFT saves them, of a few lines. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { type FloatName, fromFloat64 } from '../../src/onnx/dtype.js';
import { randomNumbers } from './adapters.js';

export interface PeftTensor {
  readonly shape: readonly number[];
  readonly values?: ArrayLike<number>;
  readonly dtype?: FloatName;
}

export type PeftTensors = Readonly<Record<string, PeftTensor>>;

/** The bytes of `adapter_model.safetensors`; numbers that are not given are random. */
export function peftWeights(tensors: PeftTensors): Uint8Array {
  return encodeSafetensors(
    Object.entries(tensors).map(([name, { shape, values, dtype = 'float32' }], i) => {
      const count = shape.reduce((a, b) => a * b, 1);
      const numbers = Float64Array.from(values ?? randomNumbers(i + 1, count));
      return { name, dtype, shape, data: fromFloat64(dtype, numbers) };
    }),
    { format: 'pt' },
  );
}

/** Writes a folder and gives its path. A text stands for a config that is none. */
export function peftFolder(
  path: string,
  config: Readonly<Record<string, unknown>> | string,
  tensors: PeftTensors,
): string {
  mkdirSync(path, { recursive: true });
  const text = typeof config === 'string' ? config : JSON.stringify(config);
  writeFileSync(join(path, 'adapter_config.json'), text);
  writeFileSync(join(path, 'adapter_model.safetensors'), peftWeights(tensors));
  return path;
}

/** The two factors of a LORA beside one linear layer. */
export function loraTensors(
  module: string,
  [inSize, out]: readonly [number, number],
  rank = 2,
): PeftTensors {
  const key = `base_model.model.${module}`;
  const seed = module.length * 31 + out;
  return {
    [`${key}.lora_A.weight`]: { shape: [rank, inSize], values: randomNumbers(seed, rank * inSize) },
    [`${key}.lora_B.weight`]: { shape: [out, rank], values: randomNumbers(seed + 1, out * rank) },
  };
}

/** The factors of a GRALORA beside one linear layer: k x k blocks, and a general part of rank h. */
export function graloraTensors(
  module: string,
  [inSize, out]: readonly [number, number],
  { rank, k, h = 0 }: { rank: number; k: number; h?: number },
): PeftTensors {
  const key = `base_model.model.${module}`;
  const seed = module.length * 37 + out;
  const tensor = (shape: readonly number[], at: number) => {
    return {
      shape,
      values: randomNumbers(
        seed + at,
        shape.reduce((a, b) => a * b, 1),
      ),
    };
  };
  return {
    [`${key}.gralora_A`]: tensor([k, inSize / k, rank], 0),
    [`${key}.gralora_B`]: tensor([k, rank, out / k], 1),
    ...(h > 0
      ? {
          [`${key}.gralora_A_general.weight`]: tensor([h, inSize], 2),
          [`${key}.gralora_B_general.weight`]: tensor([out, h], 3),
        }
      : {}),
  };
}
