// The page: a stream of images, a frozen and an adapted network beside each other, and what can be chosen.
// An address may choose as well: ?method=neo&kind=noise&severity=2&pace=fast&threads=1&seed=1&limit=400 (images, then pause).

import { CORRUPTIONS, corrupt } from "./corruptions.js";
import { readDigits } from "./digits.js";
import { openCamera, openDigits, openFiles } from "./image_sources.js";
import { drawPlot } from "./plot.js";
import { createRandom } from "./random.js";
import { RunningMean, readLogits } from "./scores.js";
import { chooseThreads, startClient } from "./step_client.js";

const WINDOW = 200; // images of a running mean
const BATCH = 8; // images of a step
const CALM = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1500 : 350; // milliseconds between batches
const SIDES = ["frozen", "adapted"];
const TITLES = {
  pizo: "PIZO (two runs of the network)",
  fozo: "FOZO (two runs of the network)",
  neo: "NEO (one run of the network)",
};
const address = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);

const page = {
  catalogue: null,
  digits: null,
  client: null,
  source: null, // of images
  descriptions: { frozen: null, adapted: null },
  files: null, // of the visitor's steps, by side
  scores: null,
  stream: 0, // number of the loop that may go on
  isPaused: false,
  limit: Number(address.get("limit")) || Infinity, // images, then pause
  random: createRandom(Number(address.get("seed")) || Date.now()),
};

/** Forget everything that was measured. */
function clearScores() {
  const create = () => ({ right: new RunningMean(WINDOW), entropy: new RunningMean(WINDOW), time: new RunningMean(20) });
  page.scores = { images: 0, frozen: create(), adapted: create(), points: [], marks: [] };
  markCorruption();
}

function readCorruption() {
  const kind = document.querySelector("#kinds input:checked").value;
  return { kind, severity: Number($("severity").value) };
}

/** Note in the plot that the corruption has changed. */
function markCorruption() {
  const { kind, severity } = readCorruption();
  const mark = { images: page.scores.images, text: severity ? `${CORRUPTIONS[kind].title} ${severity}` : "Clean" };
  page.scores.marks = [...page.scores.marks.filter((other) => other.images !== mark.images), mark];
}

// --- one batch ---

/** Let the networks answer the next batch, and show what they say. */
async function runBatch() {
  const { preprocessing, images, classes } = page.descriptions.adapted;
  const [height, width] = preprocessing.size;
  const count = Number.isInteger(images.shape[0]) ? images.shape[0] : Math.min(BATCH, page.source.length);
  const batch = await page.source.next(count);
  const { kind, severity } = readCorruption();
  const pixels = corrupt(batch.pixels, height, width, kind, severity, page.random);
  const answers = {};
  for (const side of SIDES.filter((name) => page.descriptions[name])) {
    const result = await page.client.ask("run", { name: side, images: pixels });
    answers[side] = readLogits(result.logits, result.classes);
    addScores(page.scores[side], answers[side], batch.labels, result.milliseconds);
    if (!result.valid) say("Nothing was learnt from the last batch: its numbers were not finite, or the state is of another step.");
  }
  page.scores.images += count;
  addPoint();
  return { pixels, height, width, labels: batch.labels, answers, classes };
}

function addScores(scores, answers, labels, milliseconds) {
  if (labels) scores.right.add(answers.map((answer, index) => Number(answer.label === labels[index])));
  scores.entropy.add(answers.map((answer) => answer.entropy));
  scores.time.add([milliseconds / answers.length]);
}

function addPoint() {
  const measure = (side) => (page.source.isLabelled ? page.scores[side].right.mean : page.scores[side].entropy.mean);
  page.scores.points.push({ images: page.scores.images, frozen: measure("frozen"), adapted: measure("adapted") });
  if (page.scores.points.length > 4000) page.scores.points.shift();
}

// --- the loop ---

/** Run batches until another loop begins. */
async function runStream() {
  page.stream += 1;
  const own = page.stream;
  let shown = 0;
  while (own === page.stream && !page.isPaused && page.source) {
    const started = performance.now();
    let batch;
    try {
      batch = await runBatch();
    } catch (error) {
      if (own === page.stream) fail(error);
      return;
    }
    if (own !== page.stream) return;
    const isFast = $("pace").value === "fast";
    if (!isFast || performance.now() - shown > CALM) {
      showBatch(batch);
      shown = performance.now();
    }
    showScores();
    if (page.scores.images >= page.limit) pause(true);
    const rest = isFast ? 0 : Math.max(0, CALM - (performance.now() - started));
    await new Promise((resolve) => setTimeout(resolve, rest));
  }
}

function pause(isPaused) {
  page.isPaused = isPaused;
  document.body.dataset.stream = isPaused ? "paused" : "running"; // for programs that drive this page
  $("pause").textContent = isPaused ? "Continue" : "Pause";
  if (!isPaused) runStream();
}

/** Let both networks and all numbers start again. */
async function restart() {
  page.stream += 1;
  page.limit = Infinity;
  say("");
  await page.client.ask("reset");
  clearScores();
  showScores();
  pause(false);
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

function fail(error) {
  page.stream += 1;
  document.body.dataset.stream = "failed";
  say(error.message);
}

// --- what is seen ---

function formatPercent(share) {
  return share === null ? "–" : `${Math.round(100 * share)} %`;
}

function showScores() {
  const { scores, descriptions } = page;
  const isLabelled = page.source?.isLabelled ?? true;
  const largest = Math.log(descriptions.adapted?.classes?.length ?? 10);
  for (const side of SIDES) {
    const part = (name) => $(side).querySelector(`[data-part="${name}"]`);
    const { right, entropy, time } = scores[side];
    part("score").textContent = isLabelled ? formatPercent(right.mean) : (entropy.mean?.toFixed(2) ?? "–");
    part("caption").textContent = isLabelled
      ? `right of the last ${Math.min(WINDOW, Math.max(scores.images, 1))}`
      : "mean entropy";
    part("entropy").parentElement.hidden = !isLabelled; // it is the large number then
    part("entropy").textContent = entropy.mean?.toFixed(2) ?? "–";
    part("time").textContent = time.mean === null ? "–" : `${time.mean.toFixed(time.mean < 10 ? 1 : 0)} ms`;
  }
  $("largest-entropy").textContent = largest.toFixed(2);
  $("plot-caption").hidden = !isLabelled;
  document.body.dataset.images = scores.images;
  summarise(isLabelled);
  drawPlot($("plot"), {
    points: scores.points,
    marks: scores.marks,
    top: isLabelled ? 1 : largest,
    format: isLabelled ? formatPercent : (value) => value.toFixed(1),
  });
}

/** Say in one sentence which network reads better. */
function summarise(isLabelled) {
  if (!page.source) return;
  $("summary").textContent = isLabelled ? compareScores() : describeUnlabelled();
}

function describeUnlabelled() {
  const rest = page.descriptions.frozen ? "Compare how sure the networks are." : "Watch how sure the network is.";
  return `Nobody has said what the right answers are here. ${rest}`;
}

function compareScores() {
  const { frozen, adapted, images } = page.scores;
  if (images < 64 || frozen.right.mean === null) return "Both networks see the same images…";
  const points = Math.round(100 * adapted.right.mean) - Math.round(100 * frozen.right.mean);
  if (points > 0) {
    return `Adapting gets ${formatPercent(adapted.right.mean)} right, ${points} points more than the frozen network.`;
  }
  if (points < 0) return `At the moment, the frozen network is ahead by ${-points} points.`;
  return "At the moment, both networks do equally well.";
}

/** Show images with the answers of both networks below. */
function showBatch({ pixels, height, width, labels, answers, classes }) {
  const size = height * width * 3;
  const count = Math.min(BATCH, pixels.length / size);
  const tiles = Array.from({ length: count }, (_, index) => {
    const tile = document.createElement("figure");
    tile.className = "tile";
    tile.append(drawImage(pixels.subarray(index * size, (index + 1) * size), height, width));
    for (const side of SIDES.filter((name) => answers[name])) {
      tile.append(describeAnswer(side, answers[side][index], labels?.[index], classes));
    }
    return tile;
  });
  $("tiles").replaceChildren(...tiles);
}

function drawImage(pixels, height, width) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const rgba = context.createImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    rgba.data.set(pixels.subarray(pixel * 3, pixel * 3 + 3), pixel * 4);
    rgba.data[pixel * 4 + 3] = 255;
  }
  context.putImageData(rgba, 0, 0);
  return canvas;
}

function describeAnswer(side, answer, label, classes) {
  const element = document.createElement("span");
  const name = classes ? classes[answer.label] : `class ${answer.label}`;
  const isKnown = label !== undefined;
  element.className = isKnown ? `answer ${side} ${answer.label === label ? "right" : "wrong"}` : `answer ${side}`;
  element.textContent = isKnown ? `${name} ${answer.label === label ? "✓" : "✗"}` : `${formatPercent(answer.probability)} ${name}`;
  element.title = `${side}: ${name}`;
  return element;
}

// --- networks ---

/** Return the steps of the catalogue by network: frozen ones, and ones that adapt. */
function groupSteps() {
  const groups = new Map();
  for (const step of page.catalogue.steps) {
    const title = `${step.model} ${step.precision}`;
    const group = groups.get(title) ?? { title, frozen: null, adapting: [] };
    if (step.method === "no_adapt") group.frozen = step;
    else group.adapting.push(step);
    groups.set(title, group);
  }
  return [...groups.values()].filter((group) => group.adapting.length);
}

function chosenGroup() {
  return groupSteps()[$("network").selectedIndex] ?? groupSteps()[0];
}

function offerMethods() {
  const options = chosenGroup().adapting.map((step) => new Option(TITLES[step.method] ?? step.method, step.folder));
  $("method").replaceChildren(...options);
}

/** Open the chosen steps in a new worker, and start the stream. */
async function openNetworks() {
  const own = (page.stream += 1);
  say("");
  page.client?.stop();
  page.client = await startClient(chooseThreads($("threads").value));
  const group = chosenGroup();
  const requests = page.files ?? { frozen: group.frozen, adapted: { folder: $("method").value } };
  const open = async (side) => {
    const request = requests[side];
    if (!request) return null;
    const message = request.folder ? { folder: request.folder } : { files: request };
    return (await page.client.ask("open", { name: side, ...message })).description;
  };
  const [frozen, adapted] = [await open("frozen"), await open("adapted")];
  if (own !== page.stream) return;
  page.descriptions = { frozen, adapted };
  document.body.classList.toggle("single", !frozen);
  document.body.classList.toggle("words", !fitsDigits());
  describeBrowser();
  if (!page.source || (page.source.isLabelled && !fitsDigits())) {
    page.source = fitsDigits() ? openDigits(page.digits, page.random) : null;
  }
  clearScores();
  showScores();
  if (page.source) pause(page.isPaused);
  else askForImages();
}

function askForImages() {
  $("own").open = true;
  $("tiles").replaceChildren();
  $("summary").textContent = "This network reads other images than digits. Choose some below, or use the camera.";
}

/** Return true if the network reads the digits that came with the page. */
function fitsDigits() {
  const { classes, preprocessing } = page.descriptions.adapted;
  const { digits } = page;
  const isSameSize = preprocessing.size[0] === digits.height && preprocessing.size[1] === digits.width;
  return isSameSize && JSON.stringify(classes) === JSON.stringify(digits.classes);
}

function describeBrowser() {
  const { version, threads } = page.client.runtime;
  const reason = self.crossOriginIsolated ? "" : " More need a server that isolates the page, such as fozo page --serve.";
  $("about").textContent =
    `ONNX Runtime Web ${version} with WebAssembly, ${threads === 1 ? "one thread" : `${threads} threads`}.${reason} ` +
    "WebGPU is not used, because this runtime cannot compute these steps with it yet.";
}

// --- what visitors bring ---

async function openOwn() {
  const [adapted, frozen] = [[...$("own-step").files], [...$("own-frozen").files]];
  page.files = adapted.length ? { adapted, frozen: frozen.length ? frozen : null } : null;
  await openNetworks();
}

async function useSource(open) {
  page.stream += 1;
  page.source?.close();
  page.source = await open(page.descriptions.adapted.preprocessing);
  document.body.classList.add("words");
  await page.client.ask("reset");
  clearScores();
  pause(false);
}

async function openOwnImages() {
  const files = [...$("own-images").files];
  if (!files.length) return;
  let remarks = [];
  await useSource(async (recipe) => {
    const opened = await openFiles(files, recipe);
    remarks = opened.remarks;
    return { ...opened.source, length: files.length - remarks.length };
  });
  say(remarks.join("; "));
}

// --- the start ---

function guard(action) {
  return async () => {
    try {
      await action();
    } catch (error) {
      fail(error);
    }
  };
}

function buildKinds() {
  for (const [kind, { title }] of Object.entries(CORRUPTIONS)) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "kind", value: kind });
    const text = document.createElement("span");
    text.textContent = title;
    input.checked = kind === (address.get("kind") ?? "fog");
    input.addEventListener("change", markCorruption);
    label.append(input, text);
    $("kinds").append(label);
  }
}

function listen() {
  $("severity").addEventListener("input", () => ($("severity-text").textContent = $("severity").value));
  $("severity").addEventListener("change", markCorruption);
  $("pause").addEventListener("click", () => pause(!page.isPaused));
  $("reset").addEventListener("click", guard(restart));
  for (const id of ["method", "threads"]) $(id).addEventListener("change", guard(openNetworks));
  $("network").addEventListener("change", guard(async () => (offerMethods(), openNetworks())));
  for (const id of ["own-step", "own-frozen"]) $(id).addEventListener("change", guard(openOwn));
  $("own-images").addEventListener("change", guard(openOwnImages));
  $("camera").addEventListener("click", guard(() => useSource((recipe) => openCamera($("video"), recipe))));
  $("digits").addEventListener("click", guard(useDigitsAgain));
  addEventListener("resize", () => page.scores && showScores());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) page.stream += 1;
    else if (page.source && !page.isPaused) runStream();
  });
}

async function useDigitsAgain() {
  page.source?.close();
  page.source = page.files = null;
  $("own-step").value = $("own-frozen").value = $("own-images").value = "";
  await openNetworks();
}

function applyAddress() {
  for (const id of ["pace", "threads", "severity"]) if (address.has(id)) $(id).value = address.get(id);
  $("severity-text").textContent = $("severity").value;
  const method = [...$("method").options].find((option) => option.value.endsWith(`/${address.get("method")}`));
  if (method) $("method").value = method.value;
}

async function start() {
  buildKinds();
  page.catalogue = await (await fetch("page.json")).json();
  page.digits = await readDigits(page.catalogue.digits);
  const groups = groupSteps();
  $("network").replaceChildren(...groups.map((group) => new Option(group.title)));
  $("network-field").hidden = groups.length < 2;
  offerMethods();
  applyAddress();
  listen();
  await openNetworks();
}

guard(start)();
