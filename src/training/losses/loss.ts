/** A loss: its demands on the data, and nodes after a model's output with their own gradient. */

import type { GradientSeed } from '../../autodiff/differentiate.js';
import type { LabelKind } from '../../data/label-kind.js';
import type { ModelOutput } from '../../data/needs.js';
import type { GraphBuilder, ValueSpec } from '../../graph/builder.js';
import type { DataTypeName } from '../../onnx/dtype.js';
import type { Dim } from '../../onnx/model.js';
import type { OptionTable, ResolvedOf } from '../../options/option.js';
import type { MetricAccumulator, MetricOptions } from '../metrics/metric.js';

/** Facts about the data, where a loss leaves a choice. */
export interface LossData {
  /**
   * The arrays that the data have: bce reads float `target` where it is there, else integer `labels`; kl
   * leaves out positions whose `labels` are ignored where there are labels.
   */
  readonly dataKeys?: readonly string[] | undefined;
  /** mnr: rows of a sample: 2 for an anchor and its positive, 3 with a negative; default 2. */
  readonly group?: 2 | 3 | undefined;
}

/** A model output in the type that losses are computed in. */
export interface Logits extends ModelOutput {
  readonly dtype: 'float32' | 'float64';
  /**
   * If rows of [batch, length, classes] may be left out: the logits [1, kept, classes] of those in `index`,
   * int64 [kept], batch and length taken as one axis; in parts of equal length. To be called before another
   * node reads the logits.
   */
  readonly only?: (index: string) => readonly Logits[];
  /** In how many parts `only` gives them: the length of `index` has to be a multiple of it. */
  readonly parts?: number;
}

/** A loss without its inputs. */
export interface Term {
  /** Name of the loss, a scalar: a mean. */
  readonly loss: string;
  /**
   * Name of a scalar: how many elements (weights, where they have some) `loss` is the mean of. The
   * mean over several batches is Σ loss·weight / Σ weight.
   */
  readonly weight: string;
  /**
   * d loss / d logits, so that no operator of the loss has to be differentiated. Where the loss took its rows from
   * `only`, one for each part.
   */
  readonly gradient: string | readonly GradientSeed[];
}

/** A loss in a graph. */
export interface LossInGraph {
  /** Name of the loss, a scalar. */
  readonly loss: string;
  /** Name of a scalar: how many elements the loss is the mean of. */
  readonly weight: string;
  /** The graph inputs that the loss needs besides those of the model, by what they are: `labels` .. */
  readonly inputs: readonly ValueSpec[];
  /** Those that have another name in the graph, because the model has a value of theirs. */
  readonly renamed: ReadonlyMap<string, string>;
  /** Name of the value that the loss is defined on: the model's output, or a value just before or after it. */
  readonly logits: string;
  /** The starts of reverse mode: gradients with respect to the logits or to parts of them. Not kept where nothing trains. */
  readonly seeds: readonly GradientSeed[];
  /** The rows that are kept, if rows of the output are left out. */
  readonly rows?: KeptRows | undefined;
  /**
   * If the output may be the probabilities of a `last` operator that was not found: a scalar that is
   * near 0 if it is.
   */
  readonly doubt?: Doubt | undefined;
}

/** An output without the rows that are left out. */
export interface KeptRows {
  /** Name of the rows' places, int64, all axes of the output but the last taken as one. */
  readonly index: string;
  /** Names of the values that lack the others. */
  readonly values: ReadonlySet<string>;
}

/** A check of whether an output holds probabilities where a loss wants logits. */
export interface Doubt {
  /** Name of the output. */
  readonly output: string;
  /** The operator that would make probabilities. */
  readonly last: 'Softmax' | 'Sigmoid';
  /** Name of a scalar; see `addDistance`. */
  readonly distance: string;
}

/** Adds a graph input and gives its name. */
export type AddInput = (name: string, dtype: DataTypeName, shape: readonly Dim[] | null) => string;

/** A kind of loss: all that the rest of the program knows of it. */
export interface Loss<O extends OptionTable = OptionTable, T extends OptionTable = OptionTable> {
  readonly name: string;
  /** The task that it is for, in a few words. */
  readonly summary: string;
  readonly labels: LabelKind;
  /** The measures beside the loss, in words. */
  readonly measures: string;
  /** Those measures, empty. */
  metric(options: MetricOptions): MetricAccumulator;
  /** The options that it brings. */
  readonly options: O;
  /** Those that only training has: a model is measured without them. */
  readonly trainOptions: T;
  /** Shapes of the output that fit, in words, and their ranks. */
  readonly takes: string;
  readonly ranks: readonly [least: number, most: number];
  /** The reason why an output of such a rank does not fit either, and what to do. */
  unfit?(
    output: ModelOutput,
    inputs: readonly ValueSpec[],
  ): { readonly problem: string; readonly hint: string } | undefined;
  /** The operator after the logits that some models end in, and that the loss contains itself. */
  readonly contains?: 'Softmax' | 'Sigmoid';
  add(
    graph: GraphBuilder,
    logits: Logits,
    addInput: AddInput,
    options: LossData & ResolvedOf<O> & ResolvedOf<T>,
  ): Term;
}
