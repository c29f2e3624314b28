import { allGraphs, type Model } from '../onnx/model.js';

/** Hands out names that the model does not use yet, in any of its graphs. */
export class NameAuthority {
  private readonly taken = new Set<string>();
  /** The number that a wanted name got last: thousands of nodes may want the same one. */
  private readonly numbers = new Map<string, number>();

  constructor(model: Model) {
    for (const graph of allGraphs(model.graph)) {
      for (const { name } of [...graph.inputs, ...graph.outputs, ...graph.valueInfo])
        this.reserve(name);
      for (const name of graph.initializers.keys()) this.reserve(name);
      for (const node of graph.nodes) {
        this.reserve(node.name);
        for (const name of node.outputs) this.reserve(name);
      }
    }
  }

  reserve(name: string): void {
    this.taken.add(name);
  }

  /** `wanted` itself, or with the first number appended that makes it new. */
  fresh(wanted: string): string {
    let name = wanted;
    let number = this.numbers.get(wanted) ?? 0;
    while (this.taken.has(name)) name = `${wanted}_${++number}`;
    this.numbers.set(wanted, number);
    this.taken.add(name);
    return name;
  }
}
