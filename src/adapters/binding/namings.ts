/**
 * Names that a builder, or another version of a library, gives to modules. PyTorch's paths are tried first;
 * a naming counts only for a graph that shows it, because two of them may turn different modules into one
 * path, as those of an encoder and a decoder.
 */
import { BUILT_DECODER } from '../targets/built-names.js';

interface Naming {
  /** The models and files with these names, for readers of this table. */
  readonly of: string;
  /** A path that only such a graph has. */
  readonly sign: RegExp;
  /** Paths of modules as adapters have them, and in the graph. */
  readonly paths: readonly (readonly [RegExp, string])[];
}

const namings: readonly Naming[] = [
  {
    of: 'decoders of ONNX Runtime GenAI: Phi, LFM2, Granite',
    sign: BUILT_DECODER,
    paths: [
      [/\.self_attn\.(out_proj|dense)$/, '.attn.o_proj'],
      [/\.feed_forward\.w1$/, '.mlp.gate_proj'],
      [/\.feed_forward\.w3$/, '.mlp.up_proj'],
      [/\.feed_forward\.w2$/, '.mlp.down_proj'],
      [/\.shared_mlp\.input_linear$/, '.mlp.gate_up_proj'],
      [/\.shared_mlp\.output_linear$/, '.mlp.down_proj'],
    ],
  },
  {
    of: "Whisper's decoder by ONNX Runtime GenAI",
    sign: /\.layers\.\d+\.cross_attn\.q_proj$/,
    paths: [
      [/^(?:.*\.)?decoder\.layers\.(\d+)\.self_attn\.([qkv]_proj)$/, 'model.layers.$1.attn.$2'],
      [/^(?:.*\.)?decoder\.layers\.(\d+)\.self_attn\.out_proj$/, 'model.layers.$1.attn.o_proj'],
      [
        /^(?:.*\.)?decoder\.layers\.(\d+)\.encoder_attn\.q_proj$/,
        'model.layers.$1.cross_attn.q_proj',
      ],
      [
        /^(?:.*\.)?decoder\.layers\.(\d+)\.encoder_attn\.out_proj$/,
        'model.layers.$1.cross_attn.o_proj',
      ],
      [/^(?:.*\.)?decoder\.layers\.(\d+)\.(fc[12])$/, 'model.layers.$1.mlp.$2'],
      [/^proj_out$/, 'lm_head'],
    ],
  },
  {
    of: "Whisper's encoder by ONNX Runtime GenAI, which computes the decoder's keys and values of it",
    sign: /\.layers\.\d+\.attn\.cross\.k_proj$/,
    paths: [
      [/^(?:.*\.)?encoder\.layers\.(\d+)\.self_attn\.([qkv]_proj)$/, 'model.layers.$1.attn.$2'],
      [/^(?:.*\.)?encoder\.layers\.(\d+)\.self_attn\.out_proj$/, 'model.layers.$1.attn.o_proj'],
      [/^(?:.*\.)?encoder\.layers\.(\d+)\.(fc[12])$/, 'model.layers.$1.mlp.$2'],
      [
        /^(?:.*\.)?decoder\.layers\.(\d+)\.encoder_attn\.([kv]_proj)$/,
        'model.layers.$1.attn.cross.$2',
      ],
    ],
  },
  {
    of: 'vision transformers of transformers 5, for adapters of transformers 4',
    sign: /(^|\.)layers\.\d+\.attention\.q_proj$/,
    paths: [
      [/(^|\.)encoder\.layer\.(\d+)\.attention\.attention\.query$/, '$1layers.$2.attention.q_proj'],
      [/(^|\.)encoder\.layer\.(\d+)\.attention\.attention\.key$/, '$1layers.$2.attention.k_proj'],
      [/(^|\.)encoder\.layer\.(\d+)\.attention\.attention\.value$/, '$1layers.$2.attention.v_proj'],
      [/(^|\.)encoder\.layer\.(\d+)\.attention\.output\.dense$/, '$1layers.$2.attention.o_proj'],
      [/(^|\.)encoder\.layer\.(\d+)\.intermediate\.dense$/, '$1layers.$2.mlp.fc1'],
      [/(^|\.)encoder\.layer\.(\d+)\.output\.dense$/, '$1layers.$2.mlp.fc2'],
    ],
  },
  {
    of: 'vision transformers of transformers 4, for adapters of transformers 5',
    sign: /(^|\.)encoder\.layer\.\d+\.attention\.attention\.query$/,
    paths: [
      [/(^|\.)layers\.(\d+)\.attention\.q_proj$/, '$1encoder.layer.$2.attention.attention.query'],
      [/(^|\.)layers\.(\d+)\.attention\.k_proj$/, '$1encoder.layer.$2.attention.attention.key'],
      [/(^|\.)layers\.(\d+)\.attention\.v_proj$/, '$1encoder.layer.$2.attention.attention.value'],
      [/(^|\.)layers\.(\d+)\.attention\.o_proj$/, '$1encoder.layer.$2.attention.output.dense'],
      [/(^|\.)layers\.(\d+)\.mlp\.fc1$/, '$1encoder.layer.$2.intermediate.dense'],
      [/(^|\.)layers\.(\d+)\.mlp\.fc2$/, '$1encoder.layer.$2.output.dense'],
    ],
  },
];

/**
 * Other names that modules may have in a graph.
 * @param graphPaths the paths of its layers
 */
export function otherNamesIn(graphPaths: readonly string[]): (module: string) => string[] {
  const shown = namings.filter(({ sign }) => graphPaths.some((path) => sign.test(path)));
  const rules = shown.flatMap(({ paths }) => paths);
  return (module) => {
    const found = rules.filter(([from]) => from.test(module));
    return [...new Set(found.map(([from, to]) => module.replace(from, to)))];
  };
}
