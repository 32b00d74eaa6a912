// The report's figures, drawn from the numbers in the page in the place of the static ones.
const report = JSON.parse(document.getElementById("data").textContent);
const ratios = [...new Set(report.settings.filter((each) => !each.dense && each.ratio !== null).map((each) => each.ratio))].sort((a, b) => a - b);
const view = {
  dataset: report.datasets[0],
  metric: report.metrics[0].name,
  panel: null, // of those that treatments have, where all lines in one would be a tangle
  category: "",
  ratio: ratios.reduce((best, each) => (best === null || Math.abs(each - 0.5) < Math.abs(best - 0.5) ? each : best), null),
  hidden: new Set(),
};
const TAGGED = 4; // lines of a plot that can each have the ratio at every point
const titleOf = (name) => report.metrics.find((each) => each.name === name).title;
const isHidden = (each) => view.hidden.has(report.series[each.series].look);
const inPanel = (each) => view.panel === null || each.panels.includes(view.panel);
const inAnyPanel = () => report.settings.filter((each) => each.dataset === view.dataset && !isHidden(each));
const seen = () => inAnyPanel().filter(inPanel);
// The panels of the dataset; the one in view stays if it is among them.
function offered() {
  const pruned = report.settings.filter((each) => each.dataset === view.dataset && !each.dense);
  const places = [...report.panels.keys()].filter((place) => pruned.some((each) => each.panels.includes(place)));
  if (!places.includes(view.panel)) view.panel = report.preferred.find((place) => places.includes(place)) ?? null;
  return places;
}
const tone = (series) => `tone-${report.series[series].tone ?? "origin"}`;

function told(setting, ...more) {
  const interval = setting.interval ? [["95 % interval", setting.interval.map((each) => (each > 0 ? "+" : "") + each.toFixed(3)).join(" to ")]] : [];
  return [[setting.label], ...more, ...setting.told, ...interval];
}

// Per series its settings by ratio, led by the dense network it was cut from.
function lines(settings) {
  const found = new Map();
  for (const each of settings) found.set(each.series, [...(found.get(each.series) ?? []), each]);
  return [...found].map(([series, own]) => {
    const start = report.settings[own[0].start];
    const led = start && settings.includes(start) && !own.includes(start) ? [start, ...own] : own;
    return [series, led.filter((each) => each.ratio !== null).sort((a, b) => a.ratio - b.ratio), own];
  });
}

function tradeoff(figure, cost) {
  const about = report.costs.find((each) => each.name === cost);
  const known = inAnyPanel().filter((each) => each.values[cost] > 0 && view.metric in each.values);
  const settings = known.filter(inPanel);
  if (!settings.length) return empty(figure);
  const costs = known.map((each) => each.values[cost]); // one scale for all panels, so that they compare
  const log = Math.max(...costs) > 4 * Math.min(...costs);
  const range = log ? [Math.min(...costs) / 1.5, Math.max(...costs) * 1.6] : around(costs, 0.02 * Math.max(...costs));
  const area = plot(figure, {
    x: { range, log, unit: about.unit, title: `${about.title} \u2192` },
    y: { range: around(known.map((each) => each.values[view.metric]), 0.01), title: `\u2191 ${titleOf(view.metric)}` },
  });
  const place = (each) => [area.x(each.values[cost]), area.y(each.values[view.metric])];
  const front = [];
  for (const each of [...settings].sort((a, b) => a.values[cost] - b.values[cost] || b.values[view.metric] - a.values[view.metric])) {
    const [x, y] = place(each);
    if (front.length && y >= front.at(-1)[1]) continue;
    if (front.length) front.push([x, front.at(-1)[1]]);
    front.push([x, y]);
  }
  area.svg.append(shape("path", { class: "front", d: path(front) }));
  const spots = [];
  const tags = shape("g");
  const many = lines(settings).length > TAGGED;
  const highest = new Map(settings.filter((each) => !each.dense).sort((a, b) => a.values[view.metric] - b.values[view.metric]).map((each) => [each.ratioText, each]));
  for (const [series, line, own] of lines(settings)) {
    const group = shape("g", { class: tone(series) }, shape("path", { class: "thread", d: path(line.map(place)) }));
    for (const each of own) {
      const [x, y] = place(each);
      group.append(marker(report.series[series].marker, 5.5, [x, y]));
      const at = many ? { x, y: y - 10, "text-anchor": "middle" } : { x: x + 9, y: y + 4 };
      if (area.right > 380 && (!many || highest.get(each.ratioText) === each)) tags.append(shape("text", { class: "tag", ...at }, each.ratioText));
      spots.push({ at: [x, y], lines: told(each) });
    }
    area.svg.append(group);
  }
  area.svg.append(tags);
  show(figure, area.svg, spots, `${titleOf(view.metric)} against ${about.title}, on ${view.dataset}`);
}

function against(figure, metric) {
  const known = inAnyPanel().filter((each) => each.ratio !== null && metric in each.values);
  const settings = known.filter(inPanel);
  if (!settings.length) return empty(figure);
  const reach = known.flatMap((each) => [each.values[metric] - (each.spreads[metric] ?? 0), each.values[metric] + (each.spreads[metric] ?? 0)]);
  const area = plot(figure, {
    x: { range: [-0.02, Math.max(0.1, ...known.map((each) => each.ratio)) + 0.03], title: "pruning ratio \u2192" },
    y: { range: around(reach, 0.01), title: `\u2191 ${titleOf(metric)}` },
  });
  const place = (each) => [area.x(each.ratio), area.y(each.values[metric])];
  const spots = [];
  for (const [series, line, own] of lines(settings)) {
    const style = report.series[series];
    const group = shape("g", { class: tone(series) });
    if (style.tone === null) {
      const y = place(own[0])[1];
      group.append(shape("line", { class: "level", x1: area.left, x2: area.right, y1: y, y2: y }));
    }
    group.append(shape("path", { class: "line", d: path(line.map(place)), "stroke-dasharray": DASHES[style.dash] }));
    for (const each of own) {
      const [x, y] = place(each);
      const spread = each.spreads[metric];
      if (spread) group.append(shape("line", { class: "spread", x1: x, x2: x, y1: area.y(each.values[metric] - spread), y2: area.y(each.values[metric] + spread) }));
      group.append(marker(style.marker, 4.8, [x, y]));
      spots.push({ at: [x, y], lines: told(each) });
    }
    area.svg.append(group);
  }
  show(figure, area.svg, spots, `${titleOf(metric)} against the ratio, on ${view.dataset}`);
}

function stages(figure) {
  const settings = seen().filter((each) => each.stages.some((time) => time !== null));
  if (!settings.length) return empty(figure);
  const [row, narrow] = [30, figure.clientWidth < 560];
  const left = narrow ? 12 : 20 + 7 * Math.min(44, Math.max(...settings.map((each) => each.label.length)));
  const totals = settings.map((each) => each.values.ms_total ?? each.stages.reduce((sum, time) => sum + (time ?? 0), 0));
  const tall = narrow ? row + 18 : row;
  const area = plot(figure, {
    x: { range: [0, Math.max(...totals) * 1.14], unit: "ms", title: "time for one image, median \u2192" },
    left, rows: MARGIN.top + MARGIN.bottom + tall * settings.length + 4,
  });
  let key = left;
  for (const [stage, name] of [...report.stages, "rest"].entries()) {
    area.svg.append(shape("rect", { class: `bar bar-${stage}`, x: key, y: 12, width: 11, height: 11 }));
    area.svg.append(shape("text", { class: "tick", x: key + 15, y: 22 }, name));
    key += 30 + 7 * name.length;
  }
  const spots = [];
  for (const [place, each] of settings.entries()) {
    const y = area.top + tall * place + (narrow ? 16 : 4);
    const name = each.label.length > 44 ? `${each.label.slice(0, 43)}\u2026` : each.label;
    const at = narrow ? { x: left, y: y - 4 } : { x: left - 10, y: y + 16, "text-anchor": "end" };
    area.svg.append(shape("text", { class: "name", ...at }, name));
    let end = 0;
    const rest = totals[place] - each.stages.reduce((sum, time) => sum + (time ?? 0), 0);
    for (const [stage, time] of [...each.stages, Math.max(0, rest)].entries()) {
      if (!time) continue;
      area.svg.append(shape("rect", { class: `bar bar-${stage}`, x: area.x(end), y, width: Math.max(0.5, area.x(end + time) - area.x(end)), height: 22 }));
      const what = stage < report.stages.length ? report.stages[stage] : "rest";
      spots.push({ at: [area.x(end + time / 2), y + 11], lines: [[each.label], [what, UNITS.ms(time)], ["total", UNITS.ms(totals[place])]] });
      end += time;
    }
    area.svg.append(shape("text", { class: "tick", x: area.x(end) + 6, y: y + 15 }, UNITS.ms(totals[place])));
  }
  show(figure, area.svg, spots, `Time of each stage, on ${view.dataset}`);
}

function curve(figure, name) {
  const kind = report.kinds.find((each) => each.name === name);
  const settings = seen().filter((each) => each.dense || view.ratio === null || each.ratio === view.ratio);
  const known = settings.filter((each) => each.curves[view.category]?.[name]);
  if (!known.length) return empty(figure);
  const end = kind.x.at(-1);
  const area = plot(figure, { height: 0.78, x: { range: [0, end], title: `${kind.xTitle} \u2192` }, y: { range: [0, 1], title: `\u2191 ${kind.yTitle}` } });
  if (kind.chance) area.svg.append(shape("path", { class: "front", d: path([[area.x(0), area.y(0)], [area.x(1), area.y(1)]]) }));
  const spots = [];
  for (const each of known) {
    const points = each.curves[view.category][name].map((y, place) => [area.x(kind.x[place]), area.y(y)]);
    const style = report.series[each.series];
    const dash = DASHES[style.tone === null ? ":" : style.dash];
    area.svg.append(shape("g", { class: tone(each.series) }, shape("path", { class: "line", d: path(points), "stroke-dasharray": dash })));
    for (const [place, at] of points.entries()) {
      const y = each.curves[view.category][name][place];
      spots.push({ at, lines: [[each.label], [kind.xTitle.split(":")[0], kind.x[place].toFixed(3)], [kind.yTitle.split(":")[0], y.toFixed(3)]] });
    }
  }
  show(figure, area.svg, spots, `${kind.title}, on ${view.dataset}`);
}

function empty(figure) {
  const note = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  const area = shape("svg", { viewBox: "0 0 300 60", width: 300, height: 60, role: "img", "aria-label": "nothing to draw" }, shape("text", { class: "tick", x: 12, y: 34 }, "nothing of this is measured or shown here"));
  figure.querySelector(".tip")?.replaceWith(note);
  figure.querySelector("svg, img")?.remove();
  figure.prepend(area);
}

const DRAW = { tradeoff, ratio: against, stages, curve };
const redraw = () => {
  for (const figure of document.querySelectorAll("figure[data-kind]")) DRAW[figure.dataset.kind](figure, figure.dataset.of);
};

// Controls: what to look at, the same for all figures of their section.
function picker(title, options, value, choose) {
  const select = document.createElement("select");
  select.append(...options.map(([each, name]) => new Option(name, each, false, each === String(value))));
  select.addEventListener("change", () => { choose(select.value); redraw(); });
  const label = document.createElement("label");
  label.append(title, select);
  return label;
}

function legend() {
  const here = report.settings.filter((each) => each.dataset === view.dataset && inPanel(each));
  const looks = new Map(here.map((each) => [report.series[each.series].look, each.series]));
  const chips = document.createElement("div");
  chips.className = "chips";
  for (const [look, series] of looks) {
    const swatch = shape("svg", { viewBox: "-9 -9 18 18", width: 16, height: 16, class: tone(series), "aria-hidden": "true" }, marker(report.series[series].marker, 6));
    const chip = document.createElement("button");
    chip.type = "button";
    chip.append(swatch, report.series[series].label);
    chip.setAttribute("aria-pressed", String(!view.hidden.has(look)));
    chip.dataset.look = look;
    chip.addEventListener("click", () => {
      view.hidden[view.hidden.has(look) ? "delete" : "add"](look);
      for (const same of document.querySelectorAll(`.chips [data-look="${look}"]`)) same.setAttribute("aria-pressed", String(!view.hidden.has(look)));
      redraw();
    });
    chips.append(chip);
  }
  return chips;
}

function controls() {
  const bar = document.getElementById("controls");
  if (!bar) return;
  const metrics = report.metrics.filter((each) => report.settings.some((setting) => each.name in setting.values));
  const datasets = picker("data", report.datasets.map((each) => [each, each]), view.dataset, (value) => {
    view.dataset = value;
    view.category = "";
    controls();
  });
  const accuracy = picker("accuracy against cost", metrics.map((each) => [each.name, each.title]), view.metric, (value) => { view.metric = value; });
  const places = offered();
  const treatment = picker("after the cut", places.map((place) => [String(place), report.panels[place]]), view.panel, (value) => {
    view.panel = Number(value);
    for (const chips of document.querySelectorAll(".chips")) chips.replaceWith(legend()); // the picker keeps the focus
  });
  bar.replaceChildren(
    ...(report.datasets.length > 1 ? [datasets] : []), ...(places.length > 1 ? [treatment] : []), ...(metrics.length > 1 ? [accuracy] : []), legend(),
  );
  bar.hidden = false;
  const own = document.getElementById("curve-controls");
  if (!own) return;
  const here = report.settings.filter((each) => each.dataset === view.dataset);
  const categories = [...new Set(here.flatMap((each) => Object.keys(each.curves)))];
  const category = picker("category", categories.map((each) => [each, each || "mean of all"]), view.category, (value) => { view.category = value; });
  const choices = [...ratios.map((each) => [String(each), String(each)]), ["", "all"]];
  const ratio = picker("ratio", choices, view.ratio ?? "", (value) => { view.ratio = value ? Number(value) : null; });
  own.replaceChildren(...(categories.length > 1 ? [category] : []), ...(ratios.length > 1 ? [ratio] : []), legend());
  own.hidden = false;
}

// The static curves show the means; here is one figure for each kind of curve.
for (const [place, still] of document.querySelectorAll("figure[data-curves]").entries()) {
  const kinds = place ? [] : report.kinds.filter((kind) => report.settings.some((each) => Object.values(each.curves).some((found) => kind.name in found)));
  still.replaceWith(...kinds.map((kind) => {
    const figure = document.createElement("figure");
    Object.assign(figure.dataset, { kind: "curve", of: kind.name });
    figure.className = "card plot";
    figure.append(Object.assign(document.createElement("figcaption"), { textContent: kind.title }));
    return figure;
  }));
}
// The static ones have all panels side by side, these one at a time.
for (const figure of document.querySelectorAll("figure[data-kind=tradeoff], figure[data-kind=ratio]")) figure.classList.remove("wide");
controls();
redraw();
let width = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (width === document.documentElement.clientWidth) return;
  width = document.documentElement.clientWidth;
  requestAnimationFrame(redraw);
});
