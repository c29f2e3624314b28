export const lossNames = ['cross-entropy', 'causal-lm', 'mse', 'bce', 'ctc', 'mnr', 'kl'] as const;

export type LossName = (typeof lossNames)[number];
