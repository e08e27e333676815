// The page: sliders to a setting, the setting to numbers, numbers to text and paths. The setting also lives in the URL.

"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const { values: VALUES, geometry: BOX, words: WORDS } = DATA;
const NAMES = Object.keys(VALUES);
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const byId = (id) => document.getElementById(id);

/** Significant digits as the generator writes them: 0.00952856, 64, 6.09811×10⁻⁷, ∞, 0/0. */
function number(value, digits = 6) {
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

/** Numbers at K for M groups: what the page shows. */
function numbers(finite, K, M) {
  const { gap, ess, meanY, varY, meanX, varX } = finite.at(K), root = Math.sqrt(M);
  // the posterior's mean lies one standard deviation from the prior's: that is ∇ log Z
  const ratio = (mean, variance) => {
    if (variance > 0) return (root * Math.abs(mean)) / Math.sqrt(variance);
    return mean === 0 ? NaN : Infinity;
  };
  return {
    gap, ess, snr_model: ratio(1 + meanY, varY), snr_proposal: ratio(meanY, varY), snr_dreg: ratio(meanX, varX),
  };
}

/** The same to first order in 1/K, where the moments exist: quantity -> value. */
function firstOrder(law, K, M) {
  const variance = law.variance();
  if (!Number.isFinite(variance)) return {};
  const { beta, shift, width } = law, square = 1 + variance, twice = 1 + 2 * beta;
  const slope = (square * shift) / twice; // E[w²X], and -E[w²Y]
  const noise = square * ((shift / twice) ** 2 + (width * width) / twice); // E[w²Y²]
  const found = {
    gap: variance / (2 * K), ess: K / square,
    snr_model: Math.sqrt((M * K) / noise), snr_proposal: Math.sqrt(M / (K * noise)) * slope,
  };
  const fourth = 1 + 4 * beta, third = Math.exp(law.logMoment(3)) * (shift / (1 + 3 * beta));
  if (fourth > 0) {
    const moment = Math.exp(law.logMoment(4)) * ((shift / fourth) ** 2 + (beta / width) ** 2 / fourth);
    const spread = moment - 4 * slope * third + slope * slope * (4 * square - 1);
    if (spread > 0) found.snr_dreg = (Math.sqrt(M * K) * slope) / Math.sqrt(spread);
  }
  return found;
}

// the setting -------------------------------------------------------------------------------------------------------

const setting = { ...DATA.default };

/** The slider's value nearest to a number, on a logarithmic scale for counts. */
function nearest(name, wanted) {
  const scale = name === "K" || name === "M" ? Math.log : (x) => x;
  const distance = (value) => Math.abs(scale(value) - scale(wanted));
  return VALUES[name].reduce((best, value) => (distance(value) < distance(best) ? value : best));
}

function readHash() {
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    const wanted = Number(text);
    if (NAMES.includes(name) && text.trim() !== "" && Number.isFinite(wanted) && (wanted > 0 || name === "shift")) {
      setting[name] = nearest(name, wanted);
    }
  }
}

const hash = () => "#" + NAMES.map((name) => `${name}=${setting[name]}`).join("&");

// drawing -----------------------------------------------------------------------------------------------------------

const across = (K) => BOX.left + ((BOX.right - BOX.left) * Math.log10(K)) / BOX.largest;
const drawn = (value) => value > 0 && value < Infinity;

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

/** Heights of labels beside the curves' ends, moved apart. */
function labelHeights(panel, ends) {
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
    const heights = labelHeights(panel, panel.curves.map((name) => curves[name].at(-1)));
    panel.curves.forEach((name, i) => {
      byId(`${name}-curve`).setAttribute("d", path(panel, curves[name]));
      byId(`${name}-law`).setAttribute("d", path(panel, laws.map((law) => law[name] ?? NaN)));
      const point = byId(`${name}-point`), label = byId(`${name}-label`);
      show(point, drawn(now[name]));
      if (drawn(now[name])) {
        point.setAttribute("cx", x);
        point.setAttribute("cy", down(panel, now[name]).toFixed(1));
      }
      show(label, heights[i] !== null);
      if (heights[i] !== null) label.setAttribute("y", (heights[i] + 4).toFixed(1));
    });
    const missing = panel.curves.flatMap((name, i) =>
      (heights[i] === null ? [fill(WORDS.one, { label: panel.labels[i], value: number(now[name]) })] : []));
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

// words -------------------------------------------------------------------------------------------------------------

function describe(panel, now, curves) {
  const sentences = panel.curves.map((name) =>
    fill(WORDS.curve, {
      name: WORDS.names[name], first: number(curves[name][0], 3), last: number(curves[name].at(-1), 3),
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
  const three = Object.fromEntries(Object.entries(now).map(([name, value]) => [name, number(value, 3)]));
  return `${fill(WORDS.summary, { ...three, K: setting.K })} ${note(law, now)}`.trim();
}

function asides(law, now) {
  const variance = law.variance(), { K, M } = setting;
  const first = Number.isFinite(variance) ? fill(WORDS.first, { first: number(variance / (2 * K), 3) }) : WORDS.no_first;
  return {
    gap: first,
    ess: fill(WORDS.share, { K, share: number((100 * now.ess) / K, 3) }),
    snr_model: fill(WORDS.groups, { M }), snr_proposal: fill(WORDS.groups, { M }), snr_dreg: fill(WORDS.groups, { M }),
  };
}

// updates -----------------------------------------------------------------------------------------------------------

let known = { key: "" }, speaking = 0;

/** Transforms and curves of a law: they serve every K, and M only scales them. */
function lawOf({ D, shift, width }) {
  const key = [D, shift, width].join();
  if (known.key !== key) {
    const law = new Law(D, shift, width), finite = new FiniteK(law, 10 ** BOX.largest);
    known = { key, law, finite, rows: BOX.curve.map((K) => [K, numbers(finite, K, 1)]) };
  }
  return known;
}

function update(speakAfter = 400) {
  const { law, finite, rows } = lawOf(setting), { K, M } = setting;
  const now = numbers(finite, K, M), root = Math.sqrt(M);
  const curves = Object.fromEntries(Object.keys(now).map((name) => {
    const scale = name.startsWith("snr") ? root : 1;
    return [name, rows.map(([, row]) => scale * row[name])];
  }));
  for (const name of NAMES) {
    const slider = byId(name), text = DATA.texts[name] ? setting[name].toFixed(DATA.texts[name]) : String(setting[name]);
    slider.value = VALUES[name].indexOf(setting[name]);
    slider.setAttribute("aria-valuetext", `${text} ${DATA.spoken[name]}`);
    byId(`${name}-value`).textContent = text;
    for (const place of document.querySelectorAll(`[data-setting="${name}"]`)) place.textContent = text;
  }
  const notes = asides(law, now);
  for (const [name, value] of Object.entries(now)) {
    const readout = byId(`${name}-value`);
    readout.value = String(value);
    readout.textContent = number(value);
    byId(`${name}-aside`).textContent = notes[name];
  }
  for (const button of document.querySelectorAll("[data-preset]")) {
    const preset = DATA.presets[button.dataset.preset];
    button.setAttribute("aria-pressed", String(NAMES.every((name) => preset[name] === setting[name])));
  }
  drawWeights(law, now);
  draw(now, curves, BOX.curve.map((n) => firstOrder(law, n, M)));
  clearTimeout(speaking); // a screen reader hears the end of a drag, not each step of it
  const speak = () => { byId("summary").textContent = summary(law, now); };
  if (speakAfter) speaking = setTimeout(speak, speakAfter);
  else speak();
}

let frame = 0;
function later() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    update();
    history.replaceState(null, "", hash());
  });
}

for (const name of NAMES) {
  byId(name).addEventListener("input", (event) => {
    setting[name] = VALUES[name][Number(event.target.value)];
    later();
  });
}
for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => {
    Object.assign(setting, DATA.presets[button.dataset.preset]);
    later();
  });
}
window.addEventListener("hashchange", () => {
  Object.assign(setting, DATA.default);
  readHash();
  update();
});
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("sliders").disabled = byId("presets").disabled = false;
readHash();
update(0);
