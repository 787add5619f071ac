// Resizing as Pillow does: filters that widen with the reduction, one axis after the other, weights with 22
// binary places, and bytes in between. Pixels are bytes [H, W, 3].

const PLACES = 2 ** 22;

const FILTERS = {
  box: { support: 0.5, weigh: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weigh: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: { support: 1, weigh: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x))) },
  bicubic: { support: 2, weigh: (x) => weighCubic(Math.abs(x)) },
  lanczos: { support: 3, weigh: (x) => (Math.abs(x) >= 3 ? 0 : sinc(x) * sinc(x / 3)) },
};

/** Return an image of another size. `image` has data, height and width. */
export function resize(image, height, width, interpolation) {
  if (interpolation === "nearest") return pickNearest(image, height, width);
  const filter = FILTERS[interpolation];
  const across = (each) => (width === each.width ? each : resizeAxis(each, width, filter, false));
  const down = (each) => (height === each.height ? each : resizeAxis(each, height, filter, true));
  // Bytes in between are rounded, so the order matters; Pillow 13 takes the cheaper one.
  const loss = image.height - height;
  return loss > 0 && loss > 2 * (image.width - width) ? across(down(image)) : down(across(image));
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function weighCubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** Return for every pixel of the result the first pixel that counts, and the weights from there on. */
function computeWeights(before, after, filter) {
  const scale = before / after;
  const widening = Math.max(scale, 1);
  const support = filter.support * widening;
  return Array.from({ length: after }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(before, Math.trunc(center + support + 0.5));
    const weights = Array.from({ length: end - first }, (_unused, tap) =>
      filter.weigh((first + tap - center + 0.5) / widening),
    );
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => roundAway((weight / total) * PLACES)) };
  });
}

function roundAway(value) {
  return Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
}

function resizeAxis(image, length, filter, vertical) {
  const [height, width] = vertical ? [length, image.width] : [image.height, length];
  const [along, across] = vertical ? [image.width * 3, 3] : [3, image.width * 3];
  const lines = vertical ? width : height;
  const data = new Uint8Array(height * width * 3);
  const table = computeWeights(vertical ? image.height : image.width, length, filter);
  for (let line = 0; line < lines; line += 1) {
    table.forEach(({ first, weights }, place) => {
      const target = vertical ? (place * width + line) * 3 : (line * width + place) * 3;
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = PLACES / 2;
        let source = line * across + first * along + channel;
        for (const weight of weights) {
          sum += weight * image.data[source];
          source += along;
        }
        data[target + channel] = Math.min(255, Math.max(0, Math.floor(sum / PLACES)));
      }
    });
  }
  return { data, height, width };
}

function pickNearest(image, height, width) {
  const data = new Uint8Array(height * width * 3);
  const [rows, columns] = [locateNearest(image.height, height), locateNearest(image.width, width)];
  rows.forEach((from, row) => {
    columns.forEach((place, column) => {
      const source = (from * image.width + place) * 3;
      data.set(image.data.subarray(source, source + 3), (row * width + column) * 3);
    });
  });
  return { data, height, width };
}

/** Return for every pixel of the result the one that it shows. Positions are added up, which decides ties. */
function locateNearest(before, after) {
  const scale = before / after;
  let position = 0.5 * scale;
  return Array.from({ length: after }, () => {
    const place = Math.trunc(position);
    position += scale;
    return place;
  });
}
