// A small plot of two lines over the images of a stream, as SVG, whose colours come from the style sheet.

const SPACE = { left: 40, right: 8, top: 18, bottom: 20 };
const SHOWN = 1600; // images
const LABEL_WIDTH = 90;

/** Draw into an element. `points` have images, frozen and adapted (or null); `marks` have images and text. */
export function drawPlot(element, { points, marks, top, format }) {
  const [width, height] = [element.clientWidth, element.clientHeight];
  const last = points.at(-1)?.images ?? 0;
  const first = Math.max(0, last - SHOWN);
  const length = Math.max(400, Math.min(SHOWN, last));
  const x = (images) => SPACE.left + ((images - first) / length) * (width - SPACE.left - SPACE.right);
  const y = (value) => height - SPACE.bottom - (value / top) * (height - SPACE.top - SPACE.bottom);
  const inside = points.filter((point) => point.images >= first);
  const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => drawGridLine(share * top, y, width, format));
  parts.push(...drawMarks(marks.filter((mark) => mark.images >= first), x, height));
  parts.push(text(SPACE.left, height - 4, `image ${first}`), text(width - SPACE.right, height - 4, `${first + length}`, "end"));
  for (const side of ["frozen", "adapted"]) {
    const line = inside.filter((point) => point[side] !== null);
    if (!line.length) continue;
    const path = line.map((point) => `${x(point.images).toFixed(1)},${y(point[side]).toFixed(1)}`).join(" ");
    parts.push(create("polyline", { points: line.length > 1 ? path : `${path} ${path}`, class: side }));
  }
  const svg = create("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(points, format) });
  svg.append(...parts);
  element.replaceChildren(svg);
}

function describe(points, format) {
  const last = points.at(-1);
  if (!last) return "Nothing measured yet";
  const sides = ["frozen", "adapted"].filter((side) => last[side] !== null);
  return `After ${last.images} images: ${sides.map((side) => `${side} ${format(last[side])}`).join(", ")}`;
}

function drawGridLine(value, y, width, format) {
  const line = create("line", { x1: SPACE.left, x2: width - SPACE.right, y1: y(value), y2: y(value), class: "grid" });
  return [line, text(SPACE.left - 6, y(value) + 4, format(value), "end")];
}

/** Draw a line where the corruption changed; a text that would cover the next one is left out. */
function drawMarks(marks, x, height) {
  return marks.flatMap((mark, index) => {
    const place = x(mark.images);
    const line = create("line", { x1: place, x2: place, y1: SPACE.top, y2: height - SPACE.bottom, class: "mark" });
    const next = marks[index + 1];
    const isCovered = next && x(next.images) - place < LABEL_WIDTH;
    return isCovered ? [line] : [line, text(place + 4, SPACE.top - 6, mark.text)];
  });
}

function text(x, y, content, anchor = "start") {
  const element = create("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}

function create(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
