/**
 * Compare the steps of this machine with those that were stored at compilation:
 *
 *     node verify.mjs STEP [--tolerance SHARE]
 *
 * A line has a name, and its largest difference, as a share of the largest value of that name in any step.
 */

import { join } from "node:path";

import { InputError, runCommand } from "./command.mjs";
import { countValues, readFile, readJson, toArray } from "./files.mjs";
import { checkFile, openStep, runStep } from "./step.mjs";

const TOLERANCE = "1e-4"; // whole numbers must be equal

async function verify([folder], { tolerance = TOLERANCE }) {
  if (!(Number(tolerance) >= 0)) throw new InputError(`--tolerance: expected a number, found ${tolerance}`);
  const step = await openStep(folder, 1); // the number of threads may decide on last bits; the vectors have one
  for (const name of Object.keys(step.description.files)) checkFile(folder, step.description, name);
  const vectors = readVectors(folder);
  const names = [step.description.logits, ...step.description.state.map(({ input }) => input)];
  const differences = new Map(names.map((name) => [name, 0]));
  const compare = (name, values, row) => {
    const difference = measureDifference(values, selectRow(vectors[name], row)) / findScale(vectors[name]);
    differences.set(name, Math.max(differences.get(name), difference)); // NaN stays
  };
  let state = step.firstState;
  const compareState = (row) => Object.keys(state).forEach((name) => compare(name, state[name].data, row));
  compareState(0);
  const steps = vectors.images.shape[0];
  for (let index = 0; index < steps; index++) {
    const result = await runStep(step, selectRow(vectors.images, index), state);
    if (!result.valid) throw new InputError(`step ${index} is not valid`);
    state = result.nextState;
    compare(step.description.logits, result.logits, index);
    compareState(index + 1);
  }
  report(differences, steps, Number(tolerance));
}

function report(differences, steps, tolerance) {
  for (const [name, difference] of differences) console.log(`${name}\t${difference.toExponential(1)}`);
  const failures = [...differences].filter(([, difference]) => !(difference <= tolerance));
  if (failures.length) {
    const [name, difference] = failures[0];
    throw new InputError(
      `expected differences of at most ${tolerance} within ${steps} steps, ` +
        `found ${difference.toExponential(1)} in ${name} (${failures.length} of ${differences.size} names)`,
    );
  }
  const largest = Math.max(...differences.values()).toExponential(1);
  console.log(`${steps} steps are those of the compilation: the largest difference is ${largest}`);
}

/** Return the largest difference of two arrays; of whole numbers, infinity unless they are equal. */
function measureDifference(values, expected) {
  if (values.length !== expected.length) return Infinity;
  if (values instanceof BigInt64Array) {
    return values.every((value, index) => value === expected[index]) ? 0 : Infinity;
  }
  let largest = 0;
  for (let index = 0; index < values.length; index++) {
    largest = Math.max(largest, Math.abs(values[index] - expected[index]));
  }
  return largest;
}

function findScale({ data }) {
  if (data instanceof BigInt64Array) return 1;
  return data.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) || 1;
}

function selectRow({ data, shape }, row) {
  const length = countValues(shape.slice(1));
  return data.subarray(row * length, (row + 1) * length);
}

function readVectors(folder) {
  const index = readJson(join(folder, "vectors.json"), "the index of the vectors");
  const arrays = Object.entries(index).map(([name, { file, type, shape }]) => {
    return [name, { data: toArray(readFile(join(folder, file), "vectors"), type), shape }];
  });
  return Object.fromEntries(arrays);
}

await runCommand("STEP [--tolerance SHARE]", { tolerance: { type: "string" } }, verify);
