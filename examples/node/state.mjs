/** States in files, to go on after a restart. */

import { renameSync, writeFileSync } from "node:fs";

import ort from "onnxruntime-node";

import { InputError } from "./command.mjs";
import { ARRAYS, countValues, readFile, toArray } from "./files.mjs";

/**
 * Return a state that `saveState` has written.
 *
 * @throws {InputError} the file cannot be read, or has another length than the states of this step
 */
export function loadState({ description }, file) {
  const bytes = readFile(file, "a state");
  const lengths = description.state.map(
    ({ type, shape }) => ARRAYS[type].BYTES_PER_ELEMENT * countValues(shape),
  );
  const total = lengths.reduce((sum, length) => sum + length, 0);
  if (bytes.length !== total) {
    throw new InputError(
      `${file}: expected ${total} bytes, found ${bytes.length}: a state of another step; start without it`,
    );
  }
  let start = 0;
  const tensors = description.state.map(({ input, type, shape }, index) => {
    const data = toArray(bytes.subarray(start, (start += lengths[index])), type);
    return [input, new ort.Tensor(type, data, shape)];
  });
  return Object.fromEntries(tensors);
}

/**
 * Write a state: the little-endian bytes of all its values, in the order of step.json.
 *
 * @throws {InputError} it cannot be written
 */
export function saveState({ description }, state, file) {
  const parts = description.state.map(({ input }) => {
    const { buffer, byteOffset, byteLength } = state[input].data;
    return Buffer.from(buffer, byteOffset, byteLength);
  });
  try {
    writeFileSync(`${file}.new`, Buffer.concat(parts));
    renameSync(`${file}.new`, file); // an interrupted program leaves the old state
  } catch (error) {
    throw new InputError(`cannot write the state ${file}: ${error.message}`);
  }
}
