// Corruptions of images [H, W, 3], computed here. A severity is a number from 0, nothing, to 5.
// Lengths are relative to the width of the image, so that digits and photos suffer alike.

import { drawNormal } from "./random.js";

export const CORRUPTIONS = {
  fog: { title: "Fog", apply: addFog },
  brightness: { title: "Glare", apply: (image, severity) => mapPixels(image, (value) => value + 32 * severity) },
  contrast: { title: "Low contrast", apply: lowerContrast },
  noise: { title: "Noise", apply: addNoise },
  pixelate: { title: "Pixelate", apply: pixelate },
  blur: { title: "Blur", apply: blur },
};

/** Return a corrupted copy of images of `height` × `width`, one after the other. */
export function corrupt(pixels, height, width, kind, severity, random) {
  if (severity <= 0) return pixels.slice();
  const size = height * width * 3;
  const result = new Uint8Array(pixels.length);
  for (let start = 0; start < pixels.length; start += size) {
    const image = { data: pixels.subarray(start, start + size), height, width };
    result.set(CORRUPTIONS[kind].apply(image, severity, random), start);
  }
  return result;
}

function clamp(value) {
  return Math.min(255, Math.max(0, Math.round(value)));
}

function mapPixels(image, change) {
  return Uint8Array.from(image.data, (value, index) => clamp(change(value, index)));
}

function addNoise(image, severity, random) {
  const deviation = 20 * severity;
  return mapPixels(image, (value) => value + deviation * drawNormal(random));
}

function lowerContrast(image, severity) {
  const mean = image.data.reduce((sum, value) => sum + value, 0) / image.data.length;
  const factor = Math.max(0.02, 1 - 0.2 * severity);
  return mapPixels(image, (value) => mean + factor * (value - mean));
}

function addFog(image, severity, random) {
  const fog = drawClouds(image.height, image.width, random);
  const share = 0.14 * severity;
  return mapPixels(image, (value, index) => {
    const white = 127.5 + 127.5 * fog[Math.floor(index / 3)];
    return value * (1 - share) + white * share;
  });
}

/** Return smooth random values from 0 to 1: coarse grids of three sizes, enlarged and added. */
function drawClouds(height, width, random) {
  const clouds = new Float32Array(height * width);
  for (const cells of [2, 4, 8]) {
    const grid = Float32Array.from({ length: cells * cells }, random);
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const value = interpolate(grid, cells, (row + 0.5) / height, (column + 0.5) / width);
        clouds[row * width + column] += value / cells;
      }
    }
  }
  const low = clouds.reduce((a, b) => Math.min(a, b));
  const high = clouds.reduce((a, b) => Math.max(a, b));
  return clouds.map((value) => (value - low) / (high - low || 1));
}

function interpolate(grid, cells, down, across) {
  const [top, bottom, vertical] = locate(down, cells);
  const [left, right, horizontal] = locate(across, cells);
  const mix = (row) => grid[row * cells + left] * (1 - horizontal) + grid[row * cells + right] * horizontal;
  return mix(top) * (1 - vertical) + mix(bottom) * vertical;
}

function locate(share, cells) {
  const position = share * cells - 0.5;
  const first = Math.floor(position);
  const inside = (index) => Math.min(cells - 1, Math.max(0, index));
  return [inside(first), inside(first + 1), position - first];
}

function pixelate(image, severity) {
  const { data, height, width } = image;
  const across = Math.max(2, Math.round(width / (1 + 0.9 * severity)));
  const down = Math.max(2, Math.round((height * across) / width));
  const sums = new Float64Array(down * across * 3);
  const counts = new Float64Array(down * across);
  const cellOf = (pixel) =>
    Math.floor((Math.floor(pixel / width) * down) / height) * across + Math.floor(((pixel % width) * across) / width);
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    counts[cellOf(pixel)] += 1;
    for (let channel = 0; channel < 3; channel += 1) sums[cellOf(pixel) * 3 + channel] += data[pixel * 3 + channel];
  }
  return mapPixels(image, (_, index) => {
    const cell = cellOf(Math.floor(index / 3));
    return sums[cell * 3 + (index % 3)] / counts[cell];
  });
}

function blur(image, severity) {
  const deviation = 0.02 * severity * image.width;
  const radius = Math.ceil(3 * deviation);
  const weights = Float64Array.from({ length: 2 * radius + 1 }, (_, index) =>
    Math.exp(-0.5 * ((index - radius) / deviation) ** 2),
  );
  const total = weights.reduce((a, b) => a + b);
  const kernel = weights.map((weight) => weight / total);
  const { height, width } = image;
  const across = convolve(image.data, kernel, width, 3, height, width * 3);
  return mapPixels({ data: convolve(across, kernel, height, width * 3, width, 3) }, (value) => value);
}

/** Convolve along one axis: `length` pixels, `step` values apart, on each of `lines` lines. Edges are repeated. */
function convolve(data, kernel, length, step, lines, lineStep) {
  const result = new Float64Array(data.length);
  const radius = (kernel.length - 1) / 2;
  for (let line = 0; line < lines; line += 1) {
    for (let place = 0; place < length; place += 1) {
      for (let tap = 0; tap < kernel.length; tap += 1) {
        const source = Math.min(length - 1, Math.max(0, place + tap - radius));
        for (let channel = 0; channel < 3; channel += 1) {
          result[line * lineStep + place * step + channel] +=
            kernel[tap] * data[line * lineStep + source * step + channel];
        }
      }
    }
  }
  return result;
}
