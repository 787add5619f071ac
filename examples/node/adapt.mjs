/**
 * Adapt to a folder of photos, and print the class of each one:
 *
 *     node adapt.mjs STEP PHOTOS [BATCH] [--state FILE] [--threads N]
 *
 * A line has the name of a file, its class, and the mean entropy of the stream up to its batch.
 */

import { existsSync } from "node:fs";
import { basename } from "node:path";

import { InputError, parseCount, runCommand } from "./command.mjs";
import { listPhotos, readPhotos } from "./photos.mjs";
import { loadState, saveState } from "./state.mjs";
import { chooseBatch, fillBatch, openStep, runStep } from "./step.mjs";

async function adapt([folder, photos, size], { state: file, threads }) {
  const step = await openStep(folder, parseCount(threads, "--threads"));
  const batch = chooseBatch(step.description, parseCount(size, "BATCH"));
  const paths = listPhotos(photos);
  let state = file && existsSync(file) ? loadState(step, file) : step.firstState;
  if (file) saveState(step, state, file); // what cannot be stored fails now, not after the stream
  let entropy = 0;
  let unlearnt = 0;
  for (let start = 0; start < paths.length; start += batch) {
    const files = paths.slice(start, start + batch);
    const pixels = await readPhotos(files, step.description.preprocessing);
    const result = await runStep(step, fillBatch(step.description, pixels), state);
    state = result.nextState;
    entropy += ((result.entropy - entropy) * files.length) / (start + files.length);
    if (!result.valid) unlearnt += files.length;
    files.forEach((path, index) => {
      const label = result.labels[index];
      console.log(`${basename(path)}\t${step.description.classes?.[label] ?? label}\t${entropy.toFixed(4)}`);
    });
  }
  if (unlearnt) {
    throw new InputError(
      `nothing was learnt from ${unlearnt} of ${paths.length} photos: the state is of another step, ` +
        "or not finite; start again from the first one",
    );
  }
  if (file) saveState(step, state, file);
}

await runCommand(
  "STEP PHOTOS [BATCH] [--state FILE] [--threads N]",
  { state: { type: "string" }, threads: { type: "string" } },
  adapt,
);
