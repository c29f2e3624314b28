/** Names as PyTorch has them: module paths, and parameters that were trained with the adapters. */
import { OnnxLoraError } from '../../../errors.js';
import type { AdapterShape } from '../../model/manifest.js';
import { areApart } from '../../structure/structure.js';
import { renamePaths } from '../../targets/module-path.js';
import type { AdapterContents, TrainedTensor } from '../adapter-contents.js';

/** Converts a module path of the ONNX model to the one in PyTorch. */
export type Renamer = (path: string) => string;

/**
 * An exporter may have seen a wrapper around the PyTorch model, or only a part of it, and no file says
 * so: only the user knows how paths begin here and there.
 * @param rename `OLD=NEW`, either of them may be empty; nothing where the paths are the same
 * @throws OnnxLoraError `invalid-argument` for a text that is not such a pair; the renamer throws it for a
 * path that does not start with OLD
 */
export function renamer(rename: string | undefined): Renamer {
  if (rename === undefined) return (path) => path;
  const renamed = renamePaths(rename);
  const from = rename.slice(0, rename.indexOf('='));
  return (path) => {
    if (from === '' || path.startsWith(`${from}.`)) return renamed(path);
    throw new OnnxLoraError(
      'invalid-argument',
      `the module path ${path} does not start with ${from}, which \`peftPrefix\` ${rename} expects`,
      { hint: 'See the module paths of the model with: `inspect(model)`' },
    );
  };
}

/**
 * The modules of a set's adapters, renamed.
 * @throws OnnxLoraError `unsupported` where several adapters share a weight: to PyTorch that is one module
 */
export function peftModules({ label, adapters }: AdapterContents, renamed: Renamer): string[] {
  const byWeight = new Map<string, AdapterShape[]>();
  for (const { record } of adapters) {
    const others = byWeight.get(record.weight) ?? [];
    byWeight.set(record.weight, [...others, record]);
    const other = others.find((one) => !areApart(one, record))?.name;
    if (other === undefined) continue;
    throw new OnnxLoraError(
      'unsupported',
      `${label}: the adapters ${other} and ${record.name} adapt one weight, which PEFT takes for one module`,
      { hint: 'Adapters of single nodes travel as .safetensors.' },
    );
  }
  return adapters.map(({ record }) => renamed(record.name));
}

/** A trained parameter under its key, the other way round where PyTorch keeps it so. */
export interface TrainedParameter {
  readonly key: string;
  readonly tensor: TrainedTensor;
  readonly isTransposed: boolean;
}

/** Trained parameters of the model, as PEFT keeps them. */
export interface TrainedParameters {
  readonly parameters: readonly TrainedParameter[];
  /** Modules of which more than the bias was trained. */
  readonly modulesToSave: readonly string[];
  /** Whether biases alone were trained, of adapted modules only, or of others too. */
  readonly bias: 'none' | 'only' | 'all';
}

/**
 * Sorts trained parameters into modules that are saved (PEFT's `modules_to_save`) and trained biases
 * (PEFT's `bias`).
 * @param adapted PyTorch's paths of the modules with adapters
 * @throws OnnxLoraError `unsupported` for a tensor whose name and use say no parameter of a module
 */
export function trainedParameters(
  { label, trained, renaming }: AdapterContents,
  adapted: ReadonlySet<string>,
  renamed: Renamer,
): TrainedParameters {
  const asAdapters = renamer(renaming);
  const places = trained.map((tensor) => {
    const { module, parameter, isTransposed } = placeOf(label, tensor);
    return { tensor, module: renamed(asAdapters(module)), parameter, isTransposed };
  });
  const saved = new Set(places.flatMap((p) => (p.parameter === 'bias' ? [] : [p.module])));
  const alone = places.filter(({ module }) => !saved.has(module));
  const parameters = places.map(({ module, parameter, tensor, isTransposed }) => {
    const key = adapted.has(module) ? `${module}.base_layer` : module;
    return { key: `${keyOf(key)}.${parameter}`, tensor, isTransposed };
  });
  const only = alone.every(({ module }) => adapted.has(module)) ? 'only' : 'all';
  return {
    parameters,
    modulesToSave: [...saved].sort(),
    bias: alone.length === 0 ? 'none' : only,
  };
}

/** The beginning of PEFT's keys. */
export function keyOf(module: string): string {
  return `base_model.model.${module}`;
}

const PARAMETER = /^(.+)\.(weight|bias)$/;

/** Exporters keep a parameter's name where they keep its numbers as they are. */
function placeOf(label: string, { name, layer, share, readBy }: TrainedTensor) {
  if (share) {
    const { module, parameter } = share;
    return { module, parameter, isTransposed: parameter === 'weight' && layer?.isOutIn === false };
  }
  const [, module, parameter] = PARAMETER.exec(name) ?? [];
  if (module !== undefined && parameter !== undefined) {
    const isReaders =
      !readBy || `.${readBy}`.endsWith(`.${module}`) || `.${module}`.endsWith(`.${readBy}`);
    return {
      module: isReaders || parameter === 'bias' ? module : readBy,
      parameter,
      isTransposed: false,
    };
  }
  if (layer) return { module: layer.module, parameter: 'weight', isTransposed: !layer.isOutIn };
  throw new OnnxLoraError(
    'unsupported',
    `${label}: the trained tensor ${name} has no name of a PyTorch parameter, so PEFT has no place for it`,
    { hint: 'Adapters with such tensors travel as .safetensors.' },
  );
}
