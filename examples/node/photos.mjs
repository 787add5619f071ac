/** From the files of a folder to the pixels that a step reads. */

import { readdirSync } from "node:fs";
import { join } from "node:path";

import sharp from "sharp";

import { InputError } from "./command.mjs";
import { resize } from "./resize.mjs";

const MOST_PIXELS = 64_000_000;

/**
 * Return the paths of a folder's files, sorted; hidden files are left out.
 *
 * @throws {InputError} there are none
 */
export function listPhotos(folder) {
  let names;
  try {
    names = readdirSync(folder).filter((name) => !name.startsWith("."));
  } catch (error) {
    throw new InputError(`expected a folder of photos: ${error.message}`);
  }
  if (!names.length) throw new InputError(`expected photos, found none in ${folder}`);
  return names.sort().map((name) => join(folder, name));
}

/**
 * Return photos as a step reads them, one behind the other, uint8 `[N, H, W, 3]`.
 *
 * @param {string[]} paths
 * @param {object} recipe `preprocessing` of step.json
 * @throws {InputError} a file is no image
 */
export async function readPhotos(paths, recipe) {
  const images = await Promise.all(paths.map(async (path) => prepare(await decode(path), recipe)));
  return new Uint8Array(Buffer.concat(images.map((image) => image.pixels)));
}

/** Return an image, resized and cropped by the recipe of a step. */
export function prepare(image, recipe) {
  if (recipe.frame) return addFrame(prepare(image, shrinkRecipe(recipe)), recipe.frame);
  let [width, height] = [recipe.resize, recipe.resize];
  if (recipe.crop_mode === "center") { // the shorter side gets this length, the longer one is rounded down
    const shorter = Math.min(image.width, image.height);
    width = Math.trunc((recipe.resize * image.width) / shorter);
    height = Math.trunc((recipe.resize * image.height) / shorter);
  }
  if (width * height > MOST_PIXELS) {
    const size = `${image.width}x${image.height}`;
    throw new InputError(`an image of ${size} would become one of ${width}x${height}; crop it first`);
  }
  const same = width === image.width && height === image.height;
  return cropMiddle(same ? image : resize(image, width, height, recipe.interpolation), ...recipe.size);
}

/**
 * Return the pixels of a file, RGB. As in fozo, transparency, colour profile and orientation are ignored.
 *
 * @throws {InputError} the file is no image, or a damaged one
 */
async function decode(path) {
  try {
    const image = sharp(path, { ignoreIcc: true, limitInputPixels: MOST_PIXELS });
    const raw = image.removeAlpha().toColourspace("srgb").raw();
    const { data, info } = await raw.toBuffer({ resolveWithObject: true });
    return { pixels: data, width: info.width, height: info.height };
  } catch (error) {
    throw new InputError(`expected an image, found ${path}: ${error.message}`);
  }
}

/** Return the middle of an image; where the image is smaller, the rest is black. */
function cropMiddle(image, height, width) {
  const result = { pixels: new Uint8Array(height * width * 3), width, height };
  const [top, left] = [findStart(image.height, height), findStart(image.width, width)];
  const [firstColumn, lastColumn] = [Math.max(0, left), Math.min(image.width, left + width)];
  for (let y = Math.max(0, top); y < Math.min(image.height, top + height); y++) {
    const start = y * image.width;
    const row = image.pixels.subarray((start + firstColumn) * 3, (start + lastColumn) * 3);
    result.pixels.set(row, ((y - top) * width + firstColumn - left) * 3);
  }
  return result;
}

/** Return where the middle begins; it is negative if there is less than wanted. */
function findStart(length, wanted) {
  return length < wanted ? -Math.trunc((wanted - length) / 2) : roundHalfToEven((length - wanted) / 2);
}

function roundHalfToEven(x) {
  return x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
}

function shrinkRecipe(recipe) {
  const size = recipe.size.map((length) => length - 2 * recipe.frame);
  const share = (recipe.resize * Math.min(...size)) / Math.min(...recipe.size);
  return { ...recipe, size, resize: Math.max(1, roundHalfToEven(share)), frame: 0 };
}

function addFrame(image, frame) {
  return cropMiddle(image, image.height + 2 * frame, image.width + 2 * frame);
}
