/** Which measures go with which loss. */
import type { LossName } from '../losses/index.js';
import { agreement } from './agreement.js';
import { binary } from './binary.js';
import { classification } from './classification.js';
import { language } from './language.js';
import type { MetricAccumulator, MetricOptions } from './metric.js';
import { regression } from './regression.js';
import { retrieval } from './retrieval.js';
import { transcription } from './transcription.js';

export type { MetricAccumulator, MetricName, MetricOptions, Metrics } from './metric.js';

const metrics: Readonly<Record<LossName, (options: MetricOptions) => MetricAccumulator>> = {
  'cross-entropy': classification,
  'causal-lm': language,
  mse: regression,
  bce: binary,
  ctc: transcription,
  mnr: retrieval,
  kl: agreement,
};

/** The measures that fit a loss, empty. */
export function metricsFor(loss: LossName, options: MetricOptions = {}): MetricAccumulator {
  return metrics[loss](options);
}
