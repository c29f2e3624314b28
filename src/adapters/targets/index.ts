/** The linear layers of a model, and for the others the reason why they take no adapter. */
import type { ValueIndex } from '../../graph/uses.js';
import { allGraphs, type Model, type Node } from '../../onnx/model.js';
import { packedAttention } from './attention.js';
import { pointwiseConv } from './conv.js';
import { gemm } from './gemm.js';
import {
  dynamicQuantizeMatMul,
  matMulInteger,
  matMulIntegerToFloat,
  qGemm,
  qLinearMatMul,
} from './integer-product.js';
import { fusedMatMul, matMul } from './matmul.js';
import { matMulBnb4 } from './matmul-bnb4.js';
import { matMulNBits } from './matmul-nbits.js';
import { aroundRounding } from './rounded-product.js';
import type { Finding } from './target.js';

export type {
  Addend,
  Finding,
  Geometry,
  IntegerProduct,
  LinearLayer,
  OpenGeometry,
  OpenLayer,
  RefusedNode,
  Weight,
} from './target.js';
export { isOpen } from './target.js';

/** @param added names of the nodes of adapters */
type Analyzer = (values: ValueIndex, node: Node, added: ReadonlySet<string>) => Finding;

const refuse =
  (refusal: string): Analyzer =>
  (_, node) => ({ node, refusal });

const integerConv =
  'it convolves integers: only products of matrices take adapters there; start from the model before quantization';
const packedIntegers =
  'its query, key and value weights are packed into one operator as integers; start from the model before quantization';
const experts =
  'it holds the weights of all experts in one operator, which adds no adapter between its products; export the model with a MatMul for each expert (a transformers export without this fusion), or adapt the other layers';
const fused = 'an activation is fused into it, after the point where an adapter adds';

/** Operators with weights that take no adapter, and the reason. */
export const refusedOperators: Readonly<Record<string, string>> = {
  ConvInteger: integerConv,
  QLinearConv: integerConv,
  'com.microsoft:FusedGemm': fused,
  'com.microsoft:FusedConv': fused,
  'com.microsoft:QAttention': packedIntegers,
  'com.microsoft:MoE': experts,
  'com.microsoft:QMoE': experts,
};

/** Whether a node keeps the weights of query, key and value as one, inside, where no adapter can join them. */
export function isPackedAttention(node: Node): boolean {
  return refusedOperators[operator(node)] === packedIntegers;
}

/** Every operator that multiplies with a weight matrix, by domain and type. */
const analyzers: Readonly<Record<string, Analyzer>> = {
  MatMul: (values, node) => aroundRounding(values, matMul(values, node)),
  Gemm: (values, node) => aroundRounding(values, gemm(values, node)),
  Conv: pointwiseConv,
  MatMulInteger: matMulInteger,
  QLinearMatMul: qLinearMatMul,
  'com.microsoft:Attention': packedAttention,
  'com.microsoft:FusedMatMul': fusedMatMul,
  'com.microsoft:MatMulNBits': matMulNBits,
  'com.microsoft:MatMulBnb4': matMulBnb4,
  'com.microsoft:DynamicQuantizeMatMul': dynamicQuantizeMatMul,
  'com.microsoft:MatMulIntegerToFloat': matMulIntegerToFloat,
  'com.microsoft:QGemm': qGemm,
  ...Object.fromEntries(Object.entries(refusedOperators).map(([name, why]) => [name, refuse(why)])),
};

/**
 * Looks at every node of the main graph, of its If/Loop/Scan bodies and of the functions.
 * Operators that have nothing to do with weights are left out.
 * @param added names of the nodes of adapters, which a weight is read through
 */
export function findLinearLayers(
  model: Model,
  values: ValueIndex,
  added: ReadonlySet<string> = new Set(),
): Finding[] {
  const findings: Finding[] = [];
  for (const graph of allGraphs(model.graph)) {
    for (const node of graph.nodes) {
      const analyze = analyzerOf(node);
      if (analyze) findings.push(analyze(values, node, added));
    }
  }
  for (const { name, body } of model.functions) {
    const inside = refuse(`it is inside the function ${name}; inline the model's functions first`);
    for (const graph of allGraphs(body)) {
      for (const node of graph.nodes) {
        if (analyzerOf(node)) findings.push(inside(values, node, added));
      }
    }
  }
  return findings;
}

const incomplete = refuse('it lacks an input or an output');

function analyzerOf(node: Node): Analyzer | undefined {
  const name = operator(node);
  if (!Object.hasOwn(analyzers, name)) return undefined;
  return node.inputs[0] && node.inputs[1] && node.outputs[0] ? analyzers[name] : incomplete;
}

/** `MatMul`, or `com.microsoft:FusedMatMul` for operators that are not ONNX's own. */
export function operator(node: Node): string {
  return node.domain === '' ? node.opType : `${node.domain}:${node.opType}`;
}
