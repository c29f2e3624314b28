/** Our own adapter file for a set that is in no model: of another file, or combined of several. */
import { OnnxLoraError } from '../../errors.js';
import { type SafetensorsTensor, safetensorsPieces } from '../../formats/safetensors-output.js';
import { byteLength, type FloatName } from '../../onnx/dtype.js';
import type { Piece } from '../../onnx/edit.js';
import { version } from '../../version.js';
import { numbersOf, tensorsOf } from '../kinds/tensors.js';
import type { FileManifest } from '../model/manifest.js';
import { finiteBytes, finitePiece } from '../structure/finite.js';
import type { AdapterContents } from './adapter-contents.js';
import { FORMAT } from './adapter-file.js';

/**
 * The bytes of the file; numbers are read when they are written.
 * @throws OnnxLoraError `unsupported` for a head, which only a model has
 */
export function storedPieces({ label, set, adapters, trained, hasHead }: AdapterContents): Piece[] {
  if (hasHead) throw withHead(label);
  const tensors: SafetensorsTensor<Piece>[] = [];
  const add = (name: string, dtype: FloatName, shape: number[], values: () => Float64Array) => {
    const count = shape.reduce((x, y) => x * y, 1);
    const chunks = () => [finiteBytes(dtype, values(), name)];
    tensors.push({ name, dtype, shape, data: { length: byteLength(dtype, count), chunks } });
    return name;
  };
  const manifest: FileManifest = {
    ...{ version: 1, set, createdBy: `onnx-lora ${version}` },
    adapters: adapters.map((adapter) => {
      const { record, nodes, dtype } = adapter;
      const named = tensorsOf(record).map(({ key, leaf, shape }) => {
        const values = () => numbersOf(adapter, key);
        return [key, add(`${record.name}.${leaf}`, dtype, shape, values)] as const;
      });
      const tensors = Object.fromEntries(named) as { a: string; b: string };
      // A PEFT folder knows no nodes: its layers are found by their module path.
      return { ...record, nodes: nodes.length > 0 ? [...nodes] : [record.name], ...tensors };
    }),
    ...(trained.length > 0 && {
      replaced: trained.map(({ name, dtype, dims, data, share }) => {
        const checked = finitePiece(data, dtype, `the trained ${name}`);
        tensors.push({ name: `model.${name}`, dtype, shape: dims, data: checked });
        return { tensor: name, data: `model.${name}`, ...(share ? { share } : {}) };
      }),
    }),
  };
  return safetensorsPieces(tensors, { format: FORMAT, manifest: JSON.stringify(manifest) });
}

function withHead(label: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${label} has a head, which goes from a model to a file, but not from file to file`,
    { hint: 'Put it into its model with apply, and extract it from there.' },
  );
}
