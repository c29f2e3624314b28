/**
 * Operators that are differentiated as what they are made of. The parts take the node's place in the
 * graph, so that the backward pass finds what it needs (attention's softmax) and computes nothing twice.
 */
import type { NewNode } from '../../onnx/encode.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import { type Decomposition, nodeContext } from '../rule.js';
import {
  attention,
  decoderMaskedMultiHeadAttention,
  multiHeadAttention,
  pagedAttention,
  scaledDotProductAttention,
} from './attention.js';
import { causalConv } from './causal-conv.js';
import { fusedConv, fusedGemm } from './fused-activation.js';
import { groupQueryAttention } from './group-query-attention.js';
import { mixtureOfExperts, quantizedMixtureOfExperts } from './mixture-of-experts.js';

const decompositions: Readonly<Record<string, Decomposition>> = {
  Attention: scaledDotProductAttention,
  'com.microsoft:Attention': attention,
  'com.microsoft:CausalConvWithState': causalConv,
  'com.microsoft:DecoderMaskedMultiHeadAttention': decoderMaskedMultiHeadAttention,
  'com.microsoft:FusedConv': fusedConv,
  'com.microsoft:FusedGemm': fusedGemm,
  'com.microsoft:GroupQueryAttention': groupQueryAttention,
  'com.microsoft:MoE': mixtureOfExperts,
  'com.microsoft:MultiHeadAttention': multiHeadAttention,
  'com.microsoft:PagedAttention': pagedAttention,
  'com.microsoft:QMoE': quantizedMixtureOfExperts,
};

export function isComposed({ opType, domain = '' }: NewNode): boolean {
  return Object.hasOwn(decompositions, domain === '' ? opType : `${domain}:${opType}`);
}

/** Puts what a node is made of in its place; its outputs keep their names. */
export function decompose(node: NewNode, c: OpBuilder): void {
  const { opType, domain = '', outputs } = node;
  const { nodes } = c.graph;
  const write = decompositions[domain === '' ? opType : `${domain}:${opType}`]!;
  const start = nodes.length;
  const made = write(nodeContext(node, c));
  for (const [i, output] of outputs.entries()) {
    if (output === '') continue;
    const value = made[i];
    if (value === undefined) throw new Refusal(`its output ${output} is not supported`);
    const name = c.graph.fresh(`${output}/identity`);
    c.graph.add({ name, opType: 'Identity', inputs: [value], outputs: [output] });
  }
  const parts = nodes.splice(start);
  nodes.splice(nodes.indexOf(node), 1, ...parts);
}
