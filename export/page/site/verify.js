// Compute the vectors of steps again and compare; or count the right answers on digits.
// ?step=FOLDER (several; default: all of the page) &threads=2&digits=FOLDER&batch=16

import { gatherImages, readDigits } from "./digits.js";
import { readLogits } from "./scores.js";
import { createOrt, openStep, readFolder, runStep, StepError } from "./step.js";

const TOLERANCE = 1e-4; // of the largest value of an array
const address = new URLSearchParams(location.search);
const ARRAYS = {
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float32: Float32Array,
  float64: Float64Array,
  bool: Uint8Array,
};

/** Return the arrays of vectors/, and their shapes, by name. */
async function readVectors(read) {
  const index = JSON.parse(new TextDecoder().decode(await read("vectors.json")));
  const entries = Object.entries(index).map(async ([name, { file, type, shape }]) => {
    const bytes = await read(file);
    return [name, { values: new ARRAYS[type](bytes.buffer), shape }];
  });
  return Object.fromEntries(await Promise.all(entries));
}

/** Return part `index` of an array along its first axis. */
function takePart({ values, shape }, index) {
  const size = values.length / shape[0];
  return values.subarray(index * size, (index + 1) * size);
}

/** Return the largest difference of two arrays, relative to the largest value; whole numbers are equal or not. */
function compare(values, expected) {
  if (values.length !== expected.length) return Infinity;
  if (typeof expected[0] === "bigint") return values.every((value, index) => value === expected[index]) ? 0 : Infinity;
  let [largest, difference] = [1e-9, 0];
  expected.forEach((value, index) => {
    largest = Math.max(largest, Math.abs(value));
    const distance = Math.abs(value - values[index]);
    difference = Number.isNaN(distance) ? Infinity : Math.max(difference, distance);
  });
  return difference / largest;
}

/** Replay all steps of the vectors. Returns the largest difference and where it is. */
async function verifyStep(step, read) {
  const vectors = await readVectors(read);
  let state = step.firstState;
  let worst = { difference: 0, place: "nowhere" };
  for (let index = 0; index < vectors.images.shape[0]; index += 1) {
    const result = await runStep(step, takePart(vectors.images, index), state);
    if (!result.valid) throw new StepError(`step ${index + 1}: the graph reports a state that is not valid`);
    const found = [["logits", result.logits, takePart(vectors.logits, index)]];
    for (const { input } of step.description.state) {
      found.push([input, result.nextState[input].data, takePart(vectors[input], index + 1)]);
    }
    for (const [name, values, expected] of found) {
      const difference = compare(values, expected);
      if (difference > worst.difference) worst = { difference, place: `${name}, step ${index + 1}` };
    }
    state = result.nextState;
  }
  return { steps: vectors.images.shape[0], ...worst, passed: worst.difference <= TOLERANCE };
}

/** Stream digits through a step. Returns how many are right, and how long it took. */
async function countRight(step, digits, batch) {
  let [state, right, milliseconds] = [step.firstState, 0, 0];
  for (let start = 0; start < digits.count; start += batch) {
    const indices = Array.from({ length: Math.min(batch, digits.count - start) }, (_, place) => start + place);
    const result = await runStep(step, gatherImages(digits, indices), state);
    if (!result.valid) throw new StepError(`the batch at image ${start}: the graph reports a state that is not valid`);
    const answers = readLogits(result.logits, result.classes);
    right += answers.filter((answer, place) => answer.label === digits.labels[start + place]).length;
    milliseconds += result.milliseconds;
    state = result.nextState;
  }
  return { images: digits.count, right, accuracy: right / digits.count, milliseconds };
}

function addRow(...cells) {
  const row = document.createElement("tr");
  row.append(...cells.map((cell) => Object.assign(document.createElement("td"), { textContent: cell })));
  document.getElementById("rows").append(row);
}

async function checkFolder(ort, folder, digits) {
  try {
    const read = readFolder(folder);
    const step = await openStep(ort, read);
    const result = digits
      ? { ...(await countRight(step, digits, Number(address.get("batch")) || 16)), passed: true }
      : await verifyStep(step, read);
    await step.session.release();
    if (digits) addRow(folder, "", `${result.right} of ${result.images} right`);
    else addRow(folder, `${result.difference.toExponential(1)} (${result.place})`, result.passed ? "passed" : "differs");
    return { folder, ...result };
  } catch (error) {
    addRow(folder, "", error.message);
    return { folder, passed: false, error: error.message };
  }
}

async function main() {
  const summary = document.getElementById("summary");
  try {
    const ort = await createOrt(Number(address.get("threads")) || 1);
    const digits = address.has("digits") ? await readDigits(address.get("digits")) : null;
    const catalogue = await (await fetch("page.json")).json();
    const folders = address.has("step") ? address.getAll("step") : catalogue.steps.map((step) => step.folder);
    const results = [];
    for (const folder of folders) results.push(await checkFolder(ort, folder, digits));
    const passed = results.every((result) => result.passed);
    summary.textContent = passed ? "Yes: everything agrees." : "No: something differs.";
    if (digits) summary.textContent = "Counted.";
    // For programs that drive this page.
    document.body.dataset.results = JSON.stringify({ threads: ort.env.wasm.numThreads, passed, results });
  } catch (error) {
    summary.textContent = error.message;
    document.body.dataset.results = JSON.stringify({ passed: false, error: error.message, results: [] });
  }
}

main();
