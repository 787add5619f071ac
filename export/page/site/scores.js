// Numbers about predictions.

/** Return for each image the likeliest class, its probability, and the entropy in nats. */
export function readLogits(logits, classes) {
  const count = logits.length / classes;
  return Array.from({ length: count }, (_, index) => readRow(logits.subarray(index * classes, (index + 1) * classes)));
}

function readRow(row) {
  let best = 0;
  row.forEach((value, index) => {
    if (value > row[best]) best = index;
  });
  const shifted = Array.from(row, (value) => value - row[best]);
  const total = shifted.reduce((sum, value) => sum + Math.exp(value), 0);
  const expected = shifted.reduce((sum, value) => sum + (Math.exp(value) / total) * value, 0);
  return { label: best, probability: 1 / total, entropy: Math.log(total) - expected };
}

/** The mean of the last values, and nothing about earlier ones. */
export class RunningMean {
  constructor(length) {
    this.length = length;
    this.values = [];
  }

  add(values) {
    this.values = [...this.values, ...values].slice(-this.length);
  }

  get mean() {
    if (!this.values.length) return null;
    return this.values.reduce((sum, value) => sum + value, 0) / this.values.length;
  }
}
