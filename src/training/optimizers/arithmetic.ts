import type { GraphBuilder } from '../../graph/builder.js';

/** Factors for the elements of theta; see `lrFactors`. */
export interface Factors {
  /** A vector that the learning rate is multiplied by. */
  readonly rates: string;
  /** A vector that the weight decay is multiplied by; all elements decay alike where there is none. */
  readonly decays: string | undefined;
}

/** Words for arithmetic on float32 vectors, as optimizers use them. */
export class Arithmetic {
  constructor(
    readonly graph: GraphBuilder,
    private readonly factors?: Factors | undefined,
  ) {}

  number = (value: number) => this.graph.scalar('float32', value);
  add = (a: string, b: string) => this.graph.op('Add', [a, b], {}, 'optimizer/add');
  sub = (a: string, b: string) => this.graph.op('Sub', [a, b], {}, 'optimizer/sub');
  mul = (a: string, b: string) => this.graph.op('Mul', [a, b], {}, 'optimizer/mul');
  div = (a: string, b: string) => this.graph.op('Div', [a, b], {}, 'optimizer/div');
  sqrt = (a: string) => this.graph.op('Sqrt', [a], {}, 'optimizer/sqrt');
  sign = (a: string) => this.graph.op('Sign', [a], {}, 'optimizer/sign');
  scale = (a: string, factor: number) => (factor === 1 ? a : this.mul(a, this.number(factor)));

  /** A rate that all elements share, as each of them has it: a scalar where they have the same. */
  each = (rate: string) => (this.factors ? this.mul(this.factors.rates, rate) : rate);

  /** `a` times the weight decay. */
  decay = (a: string, weightDecay: number) => {
    const { decays } = this.factors ?? {};
    return decays === undefined
      ? this.scale(a, weightDecay)
      : this.mul(a, this.scale(decays, weightDecay));
  };

  /** Decoupled weight decay: `θ · (1 - lr·λ)`. */
  decayed = (theta: string, lr: string, weightDecay: number) => {
    if (weightDecay === 0) return theta;
    return this.mul(theta, this.sub(this.number(1), this.decay(this.each(lr), weightDecay)));
  };
}
