// Plots: SVG elements, scales, axes, markers, and the words beside the pointer.
const MARGIN = { top: 40, right: 18, bottom: 46, left: 54 };
const REACH = 40; // pixels from the pointer to what it means

const SVG = Object.assign(document.createElement("div"), { innerHTML: "<svg></svg>" }).firstChild.namespaceURI;

function shape(name, attributes = {}, ...inside) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}

const trimmed = (value, digits) => String(Number(value.toPrecision(digits)));
const UNITS = {
  count: (value) => (value >= 1e9 ? `${trimmed(value / 1e9, 3)} G` : value >= 1e5 ? `${trimmed(value / 1e6, 3)} M` : value >= 1e4 ? Number(value.toPrecision(3)).toLocaleString("en") : trimmed(value, 3)),
  bytes: (value) => (value >= 1e9 ? `${trimmed(value / 1e9, 3)} GB` : value >= 1e6 ? `${trimmed(value / 1e6, 3)} MB` : `${trimmed(value / 1e3, 3)} kB`),
  ms: (value) => `${trimmed(value, 3)} ms`,
};

// A scale maps a value to a pixel; `ticks` are the round values on it.
function linear([low, high], [from, to], count) {
  const scale = (value) => from + ((value - low) / (high - low)) * (to - from);
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
  scale.ticks = [];
  const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (String(step).includes("25") ? 1 : 0));
  scale.tell = (tick) => tick.toFixed(Math.min(6, decimals));
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + 1e-9 * step; tick++) scale.ticks.push(tick * step);
  return scale;
}

function logarithmic([low, high], [from, to], count) {
  const straight = linear([Math.log10(low), Math.log10(high)], [from, to], count);
  const scale = (value) => straight(Math.log10(value));
  const steps = high < 50 * low ? [1, 2, 5] : [1, 3];
  const decades = Array.from({ length: 32 }, (_, place) => 10 ** (place - 12));
  const fitting = (factors) => decades.flatMap((each) => factors.map((factor) => each * factor)).filter((tick) => tick >= low && tick <= high);
  scale.ticks = fitting(steps).length > count + 2 ? fitting([1]) : fitting(steps);
  return scale;
}

// An empty plot of the figure's width: { svg, x, y, width, height }.
function plot(figure, { height = 0.62, x, y, left = MARGIN.left, rows = 0 }) {
  const width = Math.max(260, figure.clientWidth - 2);
  const tall = rows || Math.round(Math.min(420, Math.max(230, width * height)));
  const area = { left, right: width - MARGIN.right, top: MARGIN.top, bottom: tall - MARGIN.bottom };
  const across = Math.max(3, Math.floor((area.right - area.left) / 85));
  const toX = (x.log ? logarithmic : linear)(x.range, [area.left, area.right], across);
  const toY = y && linear(y.range, [area.bottom, area.top], 5);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${tall}`, width, height: tall, role: "img", tabindex: 0 });
  for (const tick of y ? toY.ticks : []) {
    svg.append(shape("line", { class: "grid", x1: area.left, x2: area.right, y1: toY(tick), y2: toY(tick) }));
    svg.append(shape("text", { class: "tick", x: area.left - 8, y: toY(tick) + 4, "text-anchor": "end" }, toY.tell(tick)));
  }
  for (const tick of toX.ticks) {
    svg.append(shape("line", { class: y ? "mark" : "grid", x1: toX(tick), x2: toX(tick), y1: y ? area.bottom : area.top, y2: area.bottom + 4 }));
    svg.append(shape("text", { class: "tick", x: toX(tick), y: area.bottom + 18, "text-anchor": "middle" }, x.unit ? UNITS[x.unit](tick) : toX.tell(tick)));
  }
  svg.append(shape("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }));
  svg.append(shape("text", { class: "title", x: area.right, y: tall - 8, "text-anchor": "end" }, x.title));
  if (y) svg.append(shape("text", { class: "title", x: 14, y: 20 }, y.title));
  return { svg, x: toX, y: toY, ...area };
}

// The range of some values with room around them; `least` is the smallest span that is worth showing.
function around(values, least, share = 0.12) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(high - low, least) * share + Math.max(0, least - (high - low)) / 2;
  return [low - room, high + room];
}

const path = (points) => points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

const OUTLINES = {
  o: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  s: (r) => `M${-r * 0.88} ${-r * 0.88}h${r * 1.76}v${r * 1.76}h${-r * 1.76}Z`,
  "^": (r) => `M0 ${-r * 1.15}L${r * 1.1} ${r * 0.85}H${-r * 1.1}Z`,
  v: (r) => `M0 ${r * 1.15}L${r * 1.1} ${-r * 0.85}H${-r * 1.1}Z`,
  D: (r) => `M0 ${-r * 1.25}L${r * 1.25} 0L0 ${r * 1.25}L${-r * 1.25} 0Z`,
  P: (r) => `M${-r / 2.6} ${-r}h${r / 1.3}v${r / 1.6}h${r / 1.6}v${r / 1.3}h${-r / 1.6}v${r / 1.6}h${-r / 1.3}v${-r / 1.6}h${-r / 1.6}v${-r / 1.3}h${r / 1.6}Z`,
  X: (r) => `M${-r} ${-r * 0.5}L${-r * 0.5} ${-r}L0 ${-r * 0.5}L${r * 0.5} ${-r}L${r} ${-r * 0.5}L${r * 0.5} 0L${r} ${r * 0.5}L${r * 0.5} ${r}L0 ${r * 0.5}L${-r * 0.5} ${r}L${-r} ${r * 0.5}L${-r * 0.5} 0Z`,
};
const marker = (kind, radius, at = [0, 0]) => shape("path", { class: "point", d: OUTLINES[kind](radius), transform: `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})` });
const DASHES = { "-": "", "--": "7 4", "-.": "7 3 2 3", ":": "2 4" };

// Put the plot into the figure. `spots` are what can be pointed at: { at: [x, y], lines: [[what, value], ...] }.
function show(figure, svg, spots, label) {
  svg.setAttribute("aria-label", `${label}. ${spots.length} values; the arrow keys tell them one by one.`);
  const tip = figure.querySelector(".tip") ?? figure.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
  tip.setAttribute("role", "status");
  const ring = shape("circle", { class: "ring", r: 9, visibility: "hidden" });
  svg.append(ring);
  let at = -1;
  const tell = (place) => {
    at = place;
    const spot = spots[place];
    ring.setAttribute("visibility", spot ? "visible" : "hidden");
    tip.hidden = !spot;
    if (!spot) return;
    ring.setAttribute("cx", spot.at[0]);
    ring.setAttribute("cy", spot.at[1]);
    tip.replaceChildren(...spot.lines.map(([what, value], line) => {
      const row = document.createElement(line ? "div" : "b");
      const name = Object.assign(document.createElement("span"), { textContent: what });
      row.append(name, ...(value === undefined ? [] : [Object.assign(document.createElement("span"), { textContent: value })]));
      return row;
    }));
    const shown = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const [x, y] = spot.at.map((each) => each * shown);
    const room = figure.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, Math.min(room, x + 14 + tip.offsetWidth > figure.clientWidth ? x - tip.offsetWidth - 14 : x + 14))}px`;
    tip.style.top = `${Math.max(4, y - tip.offsetHeight / 2)}px`;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const shown = box.width / svg.viewBox.baseVal.width;
    const [x, y] = [(event.clientX - box.left) / shown, (event.clientY - box.top) / shown];
    const away = spots.map((spot) => Math.hypot(spot.at[0] - x, spot.at[1] - y));
    const nearest = away.indexOf(Math.min(...away));
    tell(away[nearest] < REACH ? nearest : -1);
  });
  svg.addEventListener("pointerleave", () => tell(-1));
  svg.addEventListener("blur", () => tell(-1));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") tell(-1);
    if (!step || !spots.length) return;
    event.preventDefault();
    tell(at < 0 ? (step > 0 ? 0 : spots.length - 1) : (at + step + spots.length) % spots.length);
  });
  tell(-1);
  figure.querySelector("svg, img")?.remove();
  figure.prepend(svg);
}
