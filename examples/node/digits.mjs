/**
 * Adapt to a stream of corrupted digits that `tools/digit_stream.py` has written, and print the accuracy:
 *
 *     node digits.mjs STEP DIGITS [BATCH] [--threads N]
 */

import { join } from "node:path";

import { InputError, parseCount, runCommand } from "./command.mjs";
import { countValues, readFile, readJson } from "./files.mjs";
import { chooseBatch, countPixels, fillBatch, openStep, runStep } from "./step.mjs";

async function run([folder, digits, size], { threads }) {
  const step = await openStep(folder, parseCount(threads, "--threads"));
  const batch = chooseBatch(step.description, parseCount(size, "BATCH"));
  const length = countPixels(step.description);
  const { images, labels } = readDigits(digits, step.description.images.shape.slice(1));
  let state = step.firstState;
  let [correct, entropy] = [0, 0];
  for (let start = 0; start < labels.length; start += batch) {
    const truth = labels.subarray(start, start + batch);
    const pixels = images.subarray(start * length, (start + truth.length) * length);
    const result = await runStep(step, fillBatch(step.description, pixels), state);
    if (!result.valid) throw new InputError(`nothing was learnt from the batch at digit ${start}`);
    state = result.nextState;
    correct += truth.filter((label, index) => label === result.labels[index]).length;
    entropy += ((result.entropy - entropy) * truth.length) / (start + truth.length);
  }
  const accuracy = ((100 * correct) / labels.length).toFixed(2);
  console.log(`accuracy ${accuracy} % of ${labels.length} digits, mean entropy ${entropy.toFixed(4)}`);
}

function readDigits(folder, size) {
  const { images, labels } = readJson(join(folder, "digits.json"), "a folder of digit_stream.py");
  const found = images.shape.slice(1).join("x");
  if (found !== size.join("x")) {
    const expected = size.join("x");
    throw new InputError(`${folder}: expected images of ${expected}, found ${found}; nothing is resized here`);
  }
  return { images: readBytes(folder, images), labels: readBytes(folder, labels) };
}

function readBytes(folder, { file, shape }) {
  const path = join(folder, file);
  const bytes = readFile(path, "a file of digit_stream.py");
  const length = countValues(shape);
  if (bytes.length !== length) {
    throw new InputError(`${path}: expected ${length} bytes, found ${bytes.length}`);
  }
  return new Uint8Array(bytes);
}

await runCommand("STEP DIGITS [BATCH] [--threads N]", { threads: { type: "string" } }, run);
