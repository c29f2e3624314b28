/**
 * Adapters as ONNX Runtime's own file, `.onnx_adapter`. It holds plain LoRA: for each layer
 *
 *     <layer>.lora_A.MatMul.weight [in, rank]      <layer>.lora_B.MatMul.weight [rank, out]
 *
 * with the scale multiplied into B, because the runtime feeds tensors to graph inputs of their names
 * and neither scales nor adds. That is how Olive and ONNX Runtime GenAI write theirs; the rest
 * of a name after `lora_A` and `lora_B` is not read.
 */
import { basename, extname } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import {
  type AdapterParameter,
  type OnnxAdapterFile,
  onnxAdapterFilePieces,
  openOnnxAdapterFile,
} from '../../formats/onnx-adapter-file.js';
import { byteLength, isConvertible } from '../../onnx/dtype.js';
import type { Piece } from '../../onnx/edit.js';
import type { NewTensor } from '../../onnx/encode.js';
import { factorsOf } from '../factors/factors.js';
import { joinParts } from '../factors/join-parts.js';
import { plainFactors, plainRank } from '../factors/plain.js';
import { beyondFactors } from '../kinds/index.js';
import { parseSlotInput, slotInputs } from '../model/slot-names.js';
import { finiteBytes } from '../structure/finite.js';
import { structureOf } from '../structure/structure.js';
import type { AdapterContents } from './adapter-contents.js';
import type { AdapterFile, StoredAdapter } from './adapter-file.js';

/**
 * Opens an `.onnx_adapter` file; numbers are read when asked for. Its layers are found by the path in
 * front of `.lora_A` and `.lora_B`; the adapter set is named after the file.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `invalid-adapter` for a damaged file, for
 * parameters that are not pairs of factors [in, rank] and [rank, out], and for quantized ones
 */
export function openOnnxAdapter(path: string): AdapterFile {
  const file = openOnnxAdapterFile(path);
  try {
    const pairs = pairsOf(file, path);
    if (pairs.size === 0) throw invalid(path, 'it has no parameters');
    const adapters = [...pairs].map(([name, pair]) => storedAdapter(file, path, name, pair));
    const set = basename(path, extname(path));
    return { path, set, adapters, extras: {}, close: () => file.close() };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The parameters of a layer by their factor. */
type Pair = Partial<Record<'a' | 'b', string>>;

function pairsOf({ parameters }: OnnxAdapterFile, path: string): Map<string, Pair> {
  const pairs = new Map<string, Pair>();
  for (const [name, { dtype }] of parameters) {
    const parsed = parseSlotInput(name);
    if (!parsed) {
      const problem = `the parameter ${JSON.stringify(name)} is not one of LoRA, expected names like ${slotInputs('<layer>').a}`;
      throw invalid(path, problem);
    }
    if (!isConvertible(dtype)) {
      const problem = `the parameter ${JSON.stringify(name)} is ${dtype}, expected floating-point numbers`;
      throw invalid(path, problem, 'Convert the adapter again, without quantization.');
    }
    const { slot, factor } = parsed;
    const pair = pairs.get(slot) ?? {};
    if (pair[factor] !== undefined) {
      const names = `${JSON.stringify(pair[factor])} and ${JSON.stringify(name)}`;
      throw invalid(path, `the parameters ${names} are the same factor of one layer`);
    }
    pair[factor] = name;
    pairs.set(slot, pair);
  }
  return pairs;
}

function storedAdapter(
  file: OnnxAdapterFile,
  path: string,
  name: string,
  pair: Pair,
): StoredAdapter {
  const a = parameter(file, path, name, pair.a, 'A');
  const b = parameter(file, path, name, pair.b, 'B');
  const [inSize, rank] = a.dims as [number, number];
  const [rows, out] = b.dims as [number, number];
  if (rank !== rows || inSize * rank * out === 0) {
    const shapes = `A [${a.dims.join(', ')}] and B [${b.dims.join(', ')}]`;
    throw invalid(path, `${name} has ${shapes}, expected [in, rank] and [rank, out]`);
  }
  const record = {
    ...{ name, weight: name, in: inSize, out },
    ...{ structure: 'global' as const, grid: [1, 1] as const, rank, blockRank: rank },
    ...{ hybridRank: 0, alpha: rank, scaling: 'standard' as const, scale: 1 },
  };
  const names: Partial<Record<string, string>> = pair;
  return { record, nodes: [name], values: (factor) => finite(file, path, names[factor]!) };
}

function parameter(
  { parameters }: OnnxAdapterFile,
  path: string,
  layer: string,
  name: string | undefined,
  factor: 'A' | 'B',
): AdapterParameter {
  const found = name === undefined ? undefined : parameters.get(name);
  if (found?.dims.length === 2) return found;
  const what = found ? `[${found.dims.join(', ')}]` : 'none';
  throw invalid(path, `expected a matrix lora_${factor} for ${layer}, found ${what}`);
}

function finite(file: OnnxAdapterFile, path: string, name: string): Float64Array {
  const values = file.readFloat64(name);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return values;
  const problem = `the parameter ${JSON.stringify(name)} holds ${values[bad]} at index ${bad}, expected finite numbers`;
  throw invalid(path, problem, 'The training run diverged, or the file is damaged.');
}

function invalid(path: string, problem: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-adapter', `${path}: ${problem}`, {
    hint: hint ?? 'Is it an adapter of LoRA, as Olive and onnx-lora extract write them?',
  });
}

/**
 * The contents of an `.onnx_adapter` file for an adapter set, as the slots of its base take them. Blocks
 * become plain LoRA of their ranks together: the same ΔW, with zeros around the blocks.
 * @throws OnnxLoraError `unsupported` for what the format has no place for
 */
export function onnxAdapterPieces(contents: AdapterContents): Piece[] {
  const { label, set, adapters, trained, hasHead } = contents;
  const refuse = (what: string) => {
    const problem = `${label}: the adapter set ${set} has ${what}, and an .onnx_adapter holds factors A and B only`;
    return new OnnxLoraError('unsupported', problem, { hint: 'Write it as .safetensors.' });
  };
  if (hasHead) throw refuse('a head');
  if (trained.length > 0) throw refuse('trained tensors of the model');
  const other = beyondFactors(adapters);
  if (other) throw refuse(other);
  const whole = joinParts(
    adapters,
    ({ slot, record, nodes }) => slot?.name ?? [record.weight, ...nodes].join('\0'),
    ({ slot, record }) => slot?.name ?? record.name,
  );
  return onnxAdapterFilePieces(whole.flatMap(parametersOf));
}

function parametersOf(adapter: AdapterContents['adapters'][number]): NewTensor[] {
  const { record, slot = { name: record.name, dtype: adapter.dtype } } = adapter;
  const { dtype } = slot;
  const structure = structureOf(record);
  const rank = plainRank(structure);
  const names = slotInputs(slot.name);
  const tensor = (name: string, dims: number[], values: () => Float64Array): NewTensor => {
    const length = byteLength(dtype, dims[0]! * dims[1]!);
    const chunks = function* () {
      yield finiteBytes(dtype, values(), name);
    };
    return { name, dtype, dims, data: { length, chunks } };
  };
  const plain = () => plainFactors(structure, factorsOf(adapter));
  return [
    tensor(names.a, [record.in, rank], () => plain().a),
    tensor(names.b, [rank, record.out], () => plain().b.map((value) => value * record.scale)),
  ];
}
