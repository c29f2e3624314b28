/**
 * The module that a packed attention operator computes. The optimizer that made it of three layers gives node and
 * weight names of its own; the layer behind it still says where it comes from, and so does its output.
 */
import { partPaths } from './fusions.js';
import type { LinearLayer } from './target.js';

/** Paths of the layer behind attention, and of query, key and value as one: what PEFT's names are made of. */
const NEIGHBOURS: readonly (readonly [RegExp, string])[] = [
  [/^(.+)\.output\.dense$/, '$1.self.qkv_dense'],
  [/^(.+)\.(o_proj|out_proj)$/, '$1.qkv_proj'],
  [/^(.+)\.out_lin$/, '$1.qkv_lin'],
  [/^(.+)\.c_proj$/, '$1.c_attn'],
  [/^(.+)\.proj$/, '$1.qkv'],
];

const UNKNOWN = 'qkv_dense';

/**
 * The path of the packed module.
 * @param own the path that node or weight have, or the node's label
 * @param behind the path of the layer that reads what the operator gives
 */
export function attentionPath(
  { output }: LinearLayer,
  own: string,
  behind: string | undefined,
): string {
  if (isPacked(own)) return own;
  const rule = behind === undefined ? undefined : NEIGHBOURS.find(([path]) => path.test(behind));
  if (!rule) return `${own}.${UNKNOWN}`;
  const path = behind!.replace(...rule);
  const core = moduleOf(output);
  // BERT calls the module of the three layers `self`, ViT calls it `attention` again.
  const isInside = core !== undefined && path.startsWith(`${parentOf(core)}.self.`);
  return isInside ? `${core}.${UNKNOWN}` : path;
}

/** Whether a path is that of query, key and value as one. */
function isPacked(path: string): boolean {
  return !partPaths(path, 3)[0]!.startsWith(`${path}.`);
}

/** The module in the name of a value: `/encoder/layer.0/attention/self/Reshape_3_output_0`. */
function moduleOf(value: string): string | undefined {
  return value.startsWith('/') ? value.split('/').slice(1, -1).join('.') : undefined;
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('.'));
}
