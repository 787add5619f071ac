// The worker that computes, so that the page stays smooth. It answers one message after the other.

import { createOrt, firstLine, openStep, readChosen, readFolder, runStep } from "./step.js";

const steps = new Map(); // by name: the step, and its state
let ort = null;
let last = Promise.resolve();

const answers = {
  async start({ threads }) {
    ort = await createOrt(threads);
    return { version: ort.env.versions.web, threads: ort.env.wasm.numThreads };
  },
  async open({ name, folder, files }) {
    const read = files ? readChosen(files) : readFolder(new URL(folder, self.location.href).href);
    const step = await openStep(ort, read);
    await steps.get(name)?.step.session.release();
    steps.set(name, { step, state: step.firstState });
    return { description: step.description };
  },
  async run({ name, images }) {
    const entry = steps.get(name);
    const { nextState, ...result } = await runStep(entry.step, images, entry.state);
    entry.state = nextState;
    return result;
  },
  async reset() {
    for (const entry of steps.values()) entry.state = entry.step.firstState;
    return {};
  },
};

self.onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id: data.id, result: await answers[data.kind](data) });
    } catch (error) {
      self.postMessage({ id: data.id, error: firstLine(error) });
    }
  });
};
