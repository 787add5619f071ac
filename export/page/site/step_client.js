// The page's side of the worker: every request is a promise.

import { StepError } from "./step.js";

/** Start a worker with ONNX Runtime. */
export async function startClient(threads) {
  const worker = new Worker(new URL("step_worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data.result);
    else reject(new StepError(data.error));
  };
  worker.onerror = () => {
    for (const { reject } of waiting.values()) reject(new StepError("this browser cannot start the worker"));
    waiting.clear();
  };
  const ask = (kind, message = {}) =>
    new Promise((resolve, reject) => {
      count += 1;
      waiting.set(count, { resolve, reject });
      worker.postMessage({ ...message, kind, id: count });
    });
  const runtime = await ask("start", { threads });
  return { ask, runtime, stop: () => worker.terminate() };
}

/** Return how many threads are worth asking for; without isolation there is one. */
export function chooseThreads(requested) {
  if (!self.crossOriginIsolated) return 1;
  return Number(requested) || Math.max(1, Math.min(4, Math.floor((navigator.hardwareConcurrency || 2) / 2)));
}
