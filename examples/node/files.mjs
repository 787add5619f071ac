/** Files, and the values in them. */

import { readFileSync } from "node:fs";

import { InputError } from "./command.mjs";

export const ARRAYS = {
  bool: Uint8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array, // never a Number: it would round
  float32: Float32Array,
  float64: Float64Array,
};

/** Return the values of little-endian bytes, the order of every machine that this runtime exists for. */
export function toArray(bytes, type) {
  const copy = new Uint8Array(bytes); // begins at a multiple of 8
  return new ARRAYS[type](copy.buffer);
}

/** Return the number of values of a shape. */
export function countValues(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

/**
 * Return the bytes of a file.
 *
 * @throws {InputError} it cannot be read
 */
export function readFile(path, content) {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new InputError(`expected ${content}, found no readable file: ${path} (${error.code})`);
  }
}

/**
 * Return the values of a JSON file.
 *
 * @throws {InputError} it cannot be read
 */
export function readJson(path, content) {
  try {
    return JSON.parse(readFile(path, content).toString());
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`expected ${content}, found no JSON in ${path}: ${error.message}`);
  }
}
