/** Names of tensors in an adapter of PEFT: `base_model.model.<module>.<part>`. */

/** The role of a tensor in its module. */
export type Part =
  | 'lora_A'
  | 'lora_B'
  | 'lora_B.bias'
  | 'lora_embedding_A'
  | 'lora_embedding_B'
  | 'lora_magnitude_vector'
  | 'gralora_A'
  | 'gralora_B'
  | 'gralora_A_general'
  | 'gralora_B_general'
  | 'hira_A'
  | 'hira_B'
  | 'hira_embedding_A'
  | 'hira_embedding_B';

export interface PeftKey {
  /** Path of the module in the base model. */
  readonly module: string;
  /** A factor of an adapter, or the name of a parameter of the module that was trained whole. */
  readonly part: Part | { readonly parameter: string };
  /** The adapter's name; PEFT leaves it out of what it saves, and a plain state dict has it. */
  readonly adapter: string | undefined;
}

const PREFIX = /^base_model\.model\./;

const FACTOR =
  /^(?<module>.+)\.(?<part>(?:lora|gralora|hira)_[AB](?:_general)?|(?:lora|hira)_embedding_[AB]|lora_magnitude_vector)(?<rest>\..+)?$/;

/** Wrappers around a module that is adapted or trained whole. */
const WRAPPED = /\.modules_to_save\.(?:(?<adapter>[^.]+)\.)?|\.base_layer\./;

/** Reads a tensor's name; undefined for a name without a module. */
export function parseKey(key: string): PeftKey | undefined {
  const path = key.replace(PREFIX, '');
  const { module, part, rest = '' } = FACTOR.exec(path)?.groups ?? {};
  if (module !== undefined && part !== undefined) {
    const [, adapter, leaf] =
      /^(?:\.(?!(?:weight|bias)$)([^.]+))?(?:\.(weight|bias))?$/.exec(rest) ?? [];
    const whole = rest === '' || adapter !== undefined || leaf !== undefined;
    const name = leaf === 'bias' ? `${part}.bias` : part;
    return whole && isPart(name) ? { module, part: name, adapter } : undefined;
  }
  const adapter = WRAPPED.exec(path)?.groups?.adapter;
  const plain = path.replace(WRAPPED, '.');
  const dot = plain.lastIndexOf('.');
  if (dot < 1) return undefined;
  return { module: plain.slice(0, dot), part: { parameter: plain.slice(dot + 1) }, adapter };
}

const parts = new Set<string>([
  'lora_A',
  'lora_B',
  'lora_B.bias',
  'lora_embedding_A',
  'lora_embedding_B',
  'lora_magnitude_vector',
  'gralora_A',
  'gralora_B',
  'gralora_A_general',
  'gralora_B_general',
  'hira_A',
  'hira_B',
  'hira_embedding_A',
  'hira_embedding_B',
] satisfies Part[]);

function isPart(name: string): name is Part {
  return parts.has(name);
}
