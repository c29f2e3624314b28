// What the model says of each digit: ten logits, the higher the likelier.

export const classes = 10;

/** The digit with the highest logit, for each row of ten. */
export function readingsOf(logits) {
  return rowsOf(logits).map((row) => row.indexOf(Math.max(...row)));
}

function rowsOf(logits) {
  return Array.from({ length: logits.length / classes }, (_, i) =>
    logits.subarray(i * classes, (i + 1) * classes),
  );
}

/** The logits of one digit as probabilities. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
