// Figures and words from numbers: what is drawn is what the generator draws.

"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const { values: VALUES, geometry: BOX, words: WORDS, estimators: ESTIMATORS } = DATA;
const NAMES = Object.keys(VALUES);
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
/** So many estimators' ratios the summary says, at most. */
const SPOKEN = 4;
const byId = (id) => document.getElementById(id);

/** Significant digits as the generator writes them: 0.00952856, 64, 6.09811×10⁻⁷, ∞, 0/0. */
function number(value, digits = 6) {
  if (value === undefined) return WORDS.least;
  if (Number.isNaN(value)) return "0/0";
  if (!Number.isFinite(value)) return "∞";
  if (value === 0) return "0";
  const size = Math.abs(value), strip = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (size >= 1e-3 && size < 999999.5) {
    const text = size < 10 ** digits ? value.toPrecision(digits) : value.toFixed(0);
    return strip(text).replace("-", "−");
  }
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const raised = [...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : SUPERSCRIPTS[c])).join("");
  return `${strip(mantissa)}×10${raised}`.replace("-", "−");
}

const fill = (text, parts) => text.replace(/\{(\w+)\}/g, (_, name) => parts[name]);

const across = (K) => BOX.left + ((BOX.right - BOX.left) * Math.log10(K)) / BOX.largest;
const drawn = (value) => value > 0 && value < Infinity;

/** The drawn curves of a panel, quantity -> label: its own, and those of the chosen estimators. */
function curvesOf(panel) {
  const own = Object.entries(panel.labels), ratios = own.length ? [] : Object.entries(DATA.labels);
  return [...own, ...ratios.filter(([name]) => chosen.has(name)).map(([name, label]) => [`${name}-${panel.name}`, label])];
}

/** Adds what draws an estimator's curve, with the look of its line in the table. */
function addCurve(panel, quantity, text) {
  const sample = byId(`draw-${DATA.quantities[quantity].estimator}`).closest("tr").querySelector("svg");
  const add = (parent, tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
    return parent.appendChild(element);
  };
  const look = (kind, name) => sample.querySelector(kind).getAttribute(name), frame = byId(`${panel.name}-curves`);
  const group = add(frame, "g", { class: sample.getAttribute("class"), id: quantity });
  add(group, "path", { class: "law", id: `${quantity}-law` });
  add(group, "path", { class: "curve", id: `${quantity}-curve`, "stroke-dasharray": look(".curve", "stroke-dasharray") });
  add(group, "path", { class: "point", id: `${quantity}-point`, d: look(".point", "d") });
  const label = { class: `label ${sample.getAttribute("class")}`, id: `${quantity}-label`, x: BOX.right + 8 };
  add(frame.parentNode, "text", label).textContent = text;
}

function down(panel, value) {
  const place = (panel.high - Math.log10(value)) / (panel.high - panel.low);
  return BOX.top + (BOX.bottom - BOX.top) * Math.min(Math.max(place, -0.5), 1.5);
}

function path(panel, points) {
  let pen = "M", text = "";
  points.forEach((value, i) => {
    if (drawn(value)) text += `${pen}${across(BOX.curve[i]).toFixed(1)},${down(panel, value).toFixed(1)}`;
    pen = drawn(value) ? "L" : "M";
  });
  return text;
}

/** Heights of labels beside the curves' ends, moved apart; none where there are too many to be read. */
function labelHeights(panel, ends) {
  if (ends.length * BOX.apart > BOX.bottom - BOX.top) return ends.map(() => null);
  const clamp = (y) => Math.min(Math.max(y, BOX.top + 4), BOX.bottom - 1);
  const places = ends.map((end) => (drawn(end) ? clamp(down(panel, end)) : null));
  const order = [...places.keys()].filter((i) => places[i] !== null).sort((a, b) => places[a] - places[b] || a - b);
  let last = -Infinity;
  for (const i of order) places[i] = last = Math.max(places[i], last + BOX.apart);
  const excess = Math.max(0, last - BOX.bottom);
  for (const i of order) places[i] -= excess;
  return places;
}

function show(element, visible) {
  if (visible) element.removeAttribute("visibility");
  else element.setAttribute("visibility", "hidden");
}

function draw(now, curves, laws) {
  const x = across(setting.K).toFixed(1);
  for (const panel of BOX.panels) {
    byId(`${panel.name}-now`).setAttribute("x1", x);
    byId(`${panel.name}-now`).setAttribute("x2", x);
    const shown = curvesOf(panel), ends = shown.map(([quantity]) => curves[quantity].at(-1));
    const heights = labelHeights(panel, ends);
    for (const name of Object.keys(ESTIMATORS)) { // those drawn before
      for (const part of ["", "-label"]) if (byId(`${name}-${panel.name}${part}`)) show(byId(`${name}-${panel.name}${part}`), false);
    }
    shown.forEach(([quantity, text], i) => {
      if (!byId(quantity)) addCurve(panel, quantity, text);
      const point = byId(`${quantity}-point`), label = byId(`${quantity}-label`);
      show(byId(quantity), true);
      show(label, heights[i] !== null);
      byId(`${quantity}-curve`).setAttribute("d", path(panel, curves[quantity]));
      byId(`${quantity}-law`).setAttribute("d", path(panel, laws(quantity)));
      show(point, drawn(now[quantity]));
      if (drawn(now[quantity])) point.setAttribute("transform", `translate(${x},${down(panel, now[quantity]).toFixed(1)})`);
      if (heights[i] !== null) label.setAttribute("y", (heights[i] + 4).toFixed(1));
    });
    const missing = shown.flatMap(([quantity, label], i) =>
      (drawn(ends[i]) ? [] : [fill(WORDS.one, { label, value: number(now[quantity]) })]));
    byId(`${panel.name}-missing`).textContent = missing.length ? fill(WORDS.missing, { list: missing.join(", ") }) : "";
    byId(`${panel.name}-words`).textContent = describe(panel, now, curves);
  }
}

/** The density of log w with the bounds on its axis. */
function drawWeights(law, now) {
  const range = densityRange(law), width = BOX.right - BOX.left, places = { elbo: law.meanLog(), bound: -now.gap, evidence: 0 };
  byId("weights-missing").textContent = range ? "" : WORDS.equal;
  const [low, high] = range ?? [-1, 1], x = (place) => BOX.left + (width * (place - low)) / (high - low);
  const values = range ? density(law, range) : new Float64Array(FIGURE_POINTS), largest = Math.max(...values, 1e-300);
  const points = [...values].map((value, i) => {
    const height = BOX.peak * (BOX.bottom - BOX.top) * (Math.max(value, 0) / largest);
    return `L${(BOX.left + (width * i) / (FIGURE_POINTS - 1)).toFixed(1)},${(BOX.bottom - height).toFixed(1)}`;
  });
  const base = BOX.bottom.toFixed(1);
  byId("weights-area").setAttribute("d", `M${BOX.left.toFixed(1)},${base}${points.join("")}L${BOX.right.toFixed(1)},${base}Z`);
  const shown = ticks([low, high]);
  for (let slot = 0; slot < BOX.slots; slot++) {
    const tick = byId(`weights-tick-${slot}`), some = slot < shown.length;
    show(tick, some);
    if (some) tick.setAttribute("transform", `translate(${x(shown[slot]).toFixed(1)},0)`);
    tick.querySelector("text").textContent = some ? String(Number(shown[slot].toPrecision(6))).replace("-", "−") : "";
  }
  for (const [name, place] of Object.entries(places)) {
    byId(`weights-${name}`).setAttribute("transform", `translate(${x(place).toFixed(1)},0)`);
  }
  const spoken = Object.fromEntries(Object.entries(places).map(([name, place]) => [name, number(place, 3)]));
  byId("weights-words").textContent = fill(WORDS.weights, spoken);
}

function describe(panel, now, curves) {
  const sentences = curvesOf(panel).map(([name, label]) =>
    fill(WORDS.curve, {
      name: WORDS.names[name] ?? label, first: number(curves[name][0], 3), last: number(curves[name].at(-1), 3),
      K: setting.K, now: number(now[name], 3),
    }));
  return sentences.join(" ");
}

function note(law, now) {
  const { K, shift, width } = setting;
  if (shift === 0 && width === 1) return WORDS.posterior;
  if (shift === 0) return WORDS.centred;
  if (K === 1 && width === 1) return WORDS.noiseless;
  if (!Number.isFinite(law.variance())) return WORDS.infinite;
  const ratio = law.variance() / (2 * K) / now.gap;
  return ratio > 2 ? fill(WORDS.collapse, { ratio: number(ratio, 2) }) : "";
}

function summary(law, now) {
  const three = (name) => number(now[name], 3);
  const list = Object.entries(ESTIMATORS).filter(([name]) => chosen.has(name)).map(([name, word]) =>
    fill(WORDS.ratio, { name: word, model: three(`${name}-model`), proposal: three(`${name}-proposal`) }));
  const ratios = list.length > SPOKEN ? WORDS.many : list.length ? fill(WORDS.ratios, { list: list.join(", ") }) : "";
  const first = fill(WORDS.summary, { K: setting.K, gap: three("gap"), ess: three("ess") });
  return [first, ratios, note(law, now)].filter(Boolean).join(" ");
}

function asides(law, now) {
  const variance = law.variance(), { K } = setting;
  return {
    gap: Number.isFinite(variance) ? fill(WORDS.first, { first: number(variance / (2 * K), 3) }) : WORDS.no_first,
    ess: fill(WORDS.share, { K, share: number((100 * now.ess) / K, 3) }),
  };
}
