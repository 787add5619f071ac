// From a file or a camera to the bytes that a graph reads, by the recipe `preprocessing` in step.json.

import { resize } from "./resize.js";
import { StepError } from "./step.js";

/** Decode an image file. Colour profiles are ignored, as Pillow does; orientation in EXIF is applied. */
export async function decodeFile(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new StepError(`${file.name ?? "the file"} is no image that this browser can read`);
  }
  const image = readPixels(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return image;
}

/** Return the pixels of a bitmap or a video as bytes [H, W, 3]. */
export function readPixels(source, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    for (let channel = 0; channel < 3; channel += 1) data[pixel * 3 + channel] = rgba[pixel * 4 + channel];
  }
  return { data, height, width };
}

/** Return an image as the graph reads it: resized, then cropped in the middle, perhaps inside a frame. */
export function prepare(image, recipe) {
  const [height, width] = recipe.size;
  if (recipe.frame) return addFrame(prepare(image, shrinkRecipe(recipe)), recipe.frame);
  const target = computeTarget(image, recipe);
  const resized = resize(image, target.height, target.width, recipe.interpolation);
  return cropCenter(resized, height, width);
}

/** Return the recipe of what is inside the frame, in proportion. */
function shrinkRecipe(recipe) {
  const size = recipe.size.map((length) => length - 2 * recipe.frame);
  const length = Math.max(1, roundHalfEven((recipe.resize * Math.min(...size)) / Math.min(...recipe.size)));
  return { ...recipe, size, resize: length, frame: 0 };
}

/** Return the size after resizing: both sides (`squash`), or the shorter one, and the longer rounded down. */
function computeTarget(image, recipe) {
  const length = recipe.resize;
  if (recipe.crop_mode === "squash") return { height: length, width: length };
  if (image.width <= image.height) {
    return { height: Math.trunc((length * image.height) / image.width), width: length };
  }
  return { height: length, width: Math.trunc((length * image.width) / image.height) };
}

function addFrame(image, frame) {
  const [height, width] = [image.height + 2 * frame, image.width + 2 * frame];
  return placeImage(image, height, width, -frame, -frame);
}

/** Take the middle; smaller images get a black border, whose odd pixel is below and on the right. */
function cropCenter(image, height, width) {
  return placeImage(image, height, width, ...[image.height - height, image.width - width].map(halve));
}

function halve(difference) {
  return difference < 0 ? -Math.floor(-difference / 2) : roundHalfEven(difference / 2);
}

function placeImage(image, height, width, top, left) {
  const data = new Uint8Array(height * width * 3);
  const [start, end] = [Math.max(0, left), Math.min(image.width, left + width)];
  for (let row = 0; row < height; row += 1) {
    const from = row + top;
    if (from < 0 || from >= image.height) continue;
    const line = image.data.subarray((from * image.width + start) * 3, (from * image.width + end) * 3);
    data.set(line, (row * width + start - left) * 3);
  }
  return { data, height, width };
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}
