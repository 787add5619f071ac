/** Resizing as Pillow does it: filters as wide as the reduction asks for, in whole numbers, axis by axis. */

/** Half the width of each filter in pixels, and its value at a distance. */
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0)],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const BITS = 22; // of a weight behind the point

/**
 * Resize an image; the result is that of Pillow 13 to the bit.
 *
 * @param {{pixels: Uint8Array, width: number, height: number}} image RGB, `[height, width, 3]`
 * @param {number} width of the result
 * @param {number} height of the result
 * @param {string} filter one of Pillow's, in lower case
 */
export function resize(image, width, height, filter) {
  const loss = image.height - height;
  if (loss > 0 && loss > 2 * (image.width - width)) { // the order matters to the last bits
    return resizeRows(resizeColumns(image, height, filter), width, filter);
  }
  return resizeColumns(resizeRows(image, width, filter), height, filter);
}

function resizeRows({ pixels, width: from, height }, width, filter) {
  const result = { pixels: new Uint8Array(height * width * 3), width, height };
  const weights = weigh(from, width, filter);
  for (let y = 0; y < height; y++) {
    applyWeights(pixels, y * from * 3, result.pixels, y * width * 3, 3, weights);
  }
  return result;
}

function resizeColumns({ pixels, width, height: from }, height, filter) {
  const result = { pixels: new Uint8Array(height * width * 3), width, height };
  const weights = weigh(from, height, filter);
  for (let x = 0; x < width; x++) {
    applyWeights(pixels, x * 3, result.pixels, x * 3, width * 3, weights);
  }
  return result;
}

/** Filter one row or column: where it begins, and how far its pixels lie apart. */
function applyWeights(source, sourceStart, target, targetStart, stride, weights) {
  weights.forEach(([first, factors], index) => {
    for (let channel = 0; channel < 3; channel++) {
      let sum = 1 << (BITS - 1); // rounds
      let at = sourceStart + first * stride + channel;
      for (let k = 0; k < factors.length; k++, at += stride) sum += source[at] * factors[k];
      target[targetStart + index * stride + channel] = Math.min(Math.max(sum >> BITS, 0), 255);
    }
  });
}

/** Return, for every pixel of the result, the first pixel of the source that it sees, and their weights. */
function weigh(from, to, filter) {
  if (filter === "nearest") return weighNearest(from, to);
  const [support, value] = FILTERS[filter];
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * stretch + 0.5));
    const last = Math.min(from, Math.trunc(center + support * stretch + 0.5));
    const distance = (k) => (k + first - center + 0.5) / stretch;
    const factors = Array.from({ length: last - first }, (_, k) => value(distance(k)));
    const sum = factors.reduce((total, factor) => total + factor, 0);
    return [first, factors.map((factor) => roundAway((factor / sum) * 2 ** BITS))];
  });
}

function weighNearest(from, to) {
  let position = (from / to) * 0.5; // sums, as Pillow's, decide on ties
  return Array.from({ length: to }, () => {
    const first = Math.trunc(position);
    position += from / to;
    return [first, [2 ** BITS]];
  });
}

function roundAway(x) {
  return Math.trunc(x < 0 ? x - 0.5 : x + 0.5);
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}
