/** A compiled step: all that adaptation needs is here. */

import { createHash } from "node:crypto";
import { join } from "node:path";

import ort from "onnxruntime-node";

import { InputError } from "./command.mjs";
import { countValues, readFile, readJson } from "./files.mjs";

const SCHEMA = 1;

/**
 * Open a step.
 *
 * @param {string} folder what `fozo compile` has written
 * @param {number} [threads] of a forward; without it, ONNX Runtime takes one per core
 * @returns {Promise<{folder: string, description: object, session: ort.InferenceSession,
 *   firstState: Record<string, ort.Tensor>}>}
 * @throws {InputError} the folder has no step, or a damaged one
 */
export async function openStep(folder, threads) {
  const description = readDescription(folder);
  const options = threads ? { intraOpNumThreads: threads } : {};
  const init = await openGraph(folder, description, "init.onnx", options);
  const session = await openGraph(folder, description, "step.onnx", options);
  return { folder, description, session, firstState: await runGraph(init, {}) };
}

/**
 * Predict a batch and learn from it. `state` is left as it is.
 *
 * @param {Awaited<ReturnType<typeof openStep>>} step
 * @param {Uint8Array} pixels `[N, H, W, 3]`, RGB
 * @param {Record<string, ort.Tensor>} state the first one, or the `nextState` of the batch before
 * @returns {Promise<{logits: Float32Array, labels: number[], entropy: number, valid: boolean,
 *   nextState: Record<string, ort.Tensor>}>} `logits` are `[N, K]`
 * @throws {InputError} ONNX Runtime cannot compute it
 */
export async function runStep({ description, session }, pixels, state) {
  const { images, logits, valid, diagnostics } = description;
  const shape = [pixels.length / countPixels(description), ...images.shape.slice(1)];
  const feeds = { [images.input]: new ort.Tensor("uint8", pixels, shape), ...state };
  const outputs = await runGraph(session, feeds);
  return {
    logits: outputs[logits].data,
    labels: findLargest(outputs[logits]),
    entropy: outputs[diagnostics.entropy].data[0],
    valid: outputs[valid].data[0] === 1,
    nextState: Object.fromEntries(description.state.map((each) => [each.input, outputs[each.output]])),
  };
}

/** Return the values of an image: height times width times 3. */
export function countPixels(description) {
  return countValues(description.images.shape.slice(1));
}

/** Return the size of batches: that of the step if it has a fixed one, or else the one that is asked for. */
export function chooseBatch(description, batch) {
  const fixed = description.images.shape[0];
  if (typeof fixed !== "number") return batch ?? 8;
  if (batch !== undefined && batch !== fixed) {
    throw new InputError(`expected batches of ${fixed}, for which the step is compiled, found ${batch}`);
  }
  return fixed;
}

/** Return a batch that is filled up with copies of its images, where the step has a fixed batch. */
export function fillBatch(description, pixels) {
  const fixed = description.images.shape[0];
  if (typeof fixed !== "number") return pixels;
  const full = new Uint8Array(fixed * countPixels(description));
  for (let start = 0; start < full.length; start += pixels.length) {
    full.set(pixels.subarray(0, full.length - start), start);
  }
  return full;
}

/**
 * Compare a file of a step with its hash in step.json.
 *
 * @throws {InputError} it is another file
 */
export function checkFile(folder, description, name) {
  const path = join(folder, name);
  const digest = createHash("sha256").update(readFile(path, "a file of a step")).digest("hex");
  if (digest === description.files[name]) return;
  throw new InputError(`${path}: its hash is not that in step.json, so it is damaged; copy the folder again`);
}

function readDescription(folder) {
  const path = join(folder, "step.json");
  const description = readJson(path, "a folder that `fozo compile` has written");
  if (description?.schema !== SCHEMA) {
    const found = description?.schema;
    throw new InputError(`${path}: expected schema ${SCHEMA}, found ${found}; compile the step again`);
  }
  return description;
}

async function openGraph(folder, description, name, options) {
  checkFile(folder, description, name);
  const path = join(folder, name);
  try {
    return await ort.InferenceSession.create(path, options);
  } catch (error) {
    throw new InputError(`${path} cannot be opened by ONNX Runtime: ${error.message}`);
  }
}

async function runGraph(session, feeds) {
  try {
    return await session.run(feeds);
  } catch (error) {
    throw new InputError(`ONNX Runtime cannot run the step: ${error.message}`);
  }
}

function findLargest({ data, dims }) {
  const classes = dims[1];
  return Array.from({ length: dims[0] }, (_, row) => {
    const values = data.subarray(row * classes, (row + 1) * classes);
    return values.indexOf(Math.max(...values));
  });
}
