// Where images come from: digits, files of the visitor, a camera. Each returns batches without an end.
// A batch has `pixels`, bytes [N, H, W, 3], and `labels`, numbers of classes or null. A source says how many
// different images it has at most (`length`), and whether they have labels.

import { gatherImages } from "./digits.js";
import { decodeFile, prepare, readPixels } from "./image_recipe.js";
import { shuffle } from "./random.js";
import { StepError } from "./step.js";

const LARGEST_SELECTION = 500; // images that are kept in memory

/** Digits in a random order, again and again. */
export function openDigits(digits, random) {
  let order = [];
  return {
    length: digits.count,
    isLabelled: true,
    async next(count) {
      while (order.length < count) order = [...order, ...shuffle(digits.count, random)];
      const indices = order.slice(0, count);
      order = order.slice(count);
      return { pixels: gatherImages(digits, indices), labels: indices.map((index) => digits.labels[index]) };
    },
    close() {},
  };
}

/** Return files of the visitor, prepared by a recipe, and remarks on those that are no images. */
export async function openFiles(files, recipe) {
  const images = [];
  const remarks = [];
  for (const file of files.slice(0, LARGEST_SELECTION)) {
    try {
      images.push(prepare(await decodeFile(file), recipe).data);
    } catch (error) {
      remarks.push(error.message);
    }
  }
  if (files.length > LARGEST_SELECTION) remarks.push(`only the first ${LARGEST_SELECTION} files are used`);
  if (!images.length) throw new StepError(remarks[0] ?? "choose at least one image");
  let place = 0;
  const source = {
    length: images.length,
    isLabelled: false,
    async next(count) {
      const batch = Array.from({ length: count }, (_, index) => images[(place + index) % images.length]);
      place = (place + count) % images.length;
      return { pixels: joinImages(batch), labels: null };
    },
    close() {},
  };
  return { source, remarks };
}

/** Frames of a camera, which is shown in `video`. */
export async function openCamera(video, recipe) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new StepError(`the camera cannot be used (${error.message}); allow it, or choose files`);
  }
  video.srcObject = stream;
  video.hidden = false;
  await video.play();
  return {
    length: Infinity,
    isLabelled: false,
    async next(count) {
      const frames = [];
      for (let frame = 0; frame < count; frame += 1) {
        await new Promise((resolve) => setTimeout(resolve, 30));
        frames.push(prepare(readPixels(video, video.videoWidth, video.videoHeight), recipe).data);
      }
      return { pixels: joinImages(frames), labels: null };
    },
    close() {
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
      video.hidden = true;
    },
  };
}

function joinImages(images) {
  const pixels = new Uint8Array(images.length * images[0].length);
  images.forEach((image, index) => pixels.set(image, index * image.length));
  return pixels;
}
