// A compiled step in a browser: its files, its sessions, and one step of the loop around them.
// `ort` is ONNX Runtime Web; a state is a value, tensors by name of an input, which the caller keeps.

export class StepError extends Error {}

const FILES = ["step.json", "init.onnx", "step.onnx"];

/** Load ONNX Runtime Web, which computes with WebAssembly, from the folder runtime/. */
export async function createOrt(threads) {
  const ort = await import("./runtime/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1; // threads share memory
  return ort;
}

/** Open a step. `read(name)` returns a promise of the bytes of one of its files. */
export async function openStep(ort, read) {
  const description = parseDescription(await readFile(read, FILES[0]));
  const init = await createSession(ort, await readFile(read, FILES[1]), FILES[1]);
  const firstState = await init.run({});
  await init.release();
  const session = await createSession(ort, await readFile(read, FILES[2]), FILES[2]);
  const missing = [description.images.input, ...description.state.map((entry) => entry.input)].filter(
    (name) => !session.inputNames.includes(name),
  );
  if (missing.length) {
    throw new StepError(`step.onnx has no input ${missing[0]}: step.json belongs to another file`);
  }
  return { ort, description, session, firstState };
}

/** Run a step on `images`, bytes of N images [N, H, W, 3]. Returns its outputs and the next state. */
export async function runStep(step, images, state) {
  const { description, session, ort } = step;
  const [height, width] = description.preprocessing.size;
  const count = images.length / (height * width * 3);
  const fixed = description.images.shape[0];
  if (!Number.isInteger(count) || count < 1 || (Number.isInteger(fixed) && count !== fixed)) {
    const expected = Number.isInteger(fixed) ? fixed : "some";
    throw new StepError(`expected ${expected} images of ${width} × ${height}, found ${images.length} bytes`);
  }
  const input = new ort.Tensor("uint8", images, [count, height, width, 3]);
  const started = performance.now();
  const outputs = await session.run({ [description.images.input]: input, ...state });
  const milliseconds = performance.now() - started;
  const diagnostics = Object.entries(description.diagnostics).map(([name, key]) => [name, outputs[key].data[0]]);
  return {
    logits: outputs[description.logits].data,
    classes: outputs[description.logits].dims[1],
    valid: Boolean(outputs[description.valid].data[0]),
    diagnostics: Object.fromEntries(diagnostics),
    nextState: Object.fromEntries(description.state.map((entry) => [entry.input, outputs[entry.output]])),
    milliseconds,
  };
}

/** Return a reader of the files of a folder on the page's own server. */
export function readFolder(folder) {
  return async (name) => {
    const answer = await fetch(`${folder}/${name}`);
    if (!answer.ok) throw new StepError(`expected ${folder}/${name}, found nothing there`);
    return new Uint8Array(await answer.arrayBuffer());
  };
}

/** Return a reader of files that a visitor has chosen. */
export function readChosen(files) {
  return async (name) => {
    const file = files.find((each) => each.name === name);
    if (!file) throw new StepError(`${name} is missing; choose ${FILES.join(", ")} of one folder`);
    return new Uint8Array(await file.arrayBuffer());
  };
}

function parseDescription(bytes) {
  let description;
  try {
    description = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new StepError("step.json is no JSON file; choose the one that fozo compile has written");
  }
  if (description?.schema !== 1 || !Array.isArray(description.state) || !description.preprocessing) {
    throw new StepError("step.json describes no step that this page knows; compile the step again");
  }
  return description;
}

async function readFile(read, name) {
  const bytes = await read(name);
  if (!bytes.length) throw new StepError(`${name} is empty; copy the folder of the step again`);
  return bytes;
}

async function createSession(ort, bytes, name) {
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  } catch (error) {
    throw new StepError(`${name} cannot be opened; copy or compile the step again (${firstLine(error)})`);
  }
}

export function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0];
}
