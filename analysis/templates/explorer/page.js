// The page: sliders to a setting, the setting to numbers, numbers to figures. The setting also lives in the URL.

"use strict";

// the setting -------------------------------------------------------------------------------------------------------

const setting = { ...DATA.default };
let chosen = new Set(DATA.drawn);

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
    if (name === "draw") chosen = new Set(text.split(",").filter((one) => Object.hasOwn(ESTIMATORS, one)));
  }
}

/** In the address; the estimators only where a reader chose others. */
function hash() {
  const parts = NAMES.map((name) => `${name}=${setting[name]}`), list = Object.keys(ESTIMATORS).filter((name) => chosen.has(name));
  const same = list.length === DATA.drawn.length && DATA.drawn.every((name) => chosen.has(name));
  return "#" + [...parts, ...(same ? [] : [`draw=${list.join()}`])].join("&");
}

// updates -----------------------------------------------------------------------------------------------------------

let known = { key: "" }, settling = 0;

/** The transforms of a law: they serve every K and M. */
function lawOf({ D, shift, width }) {
  const key = [D, shift, width].join();
  if (known.key !== key) {
    const law = new Law(D, shift, width), finite = new FiniteK(law, LARGEST, Object.values(DATA.quantities));
    known = { key, law, finite, sizes: BOX.curve.map((K) => finite.numbers({}, K, 1)) };
  }
  return known;
}

/** Each drawn quantity at every K of the curves. */
function curvesAt({ finite, sizes }, M) {
  const drawnOnes = Object.entries(DATA.quantities).filter(([, { estimator }]) => chosen.has(estimator));
  const ratios = drawnOnes.map(([name, form]) => [name, BOX.curve.map((K) => finite.snr(form, K, M))]);
  return { gap: sizes.map(({ gap }) => gap), ess: sizes.map(({ ess }) => ess), ...Object.fromEntries(ratios) };
}

/** A quantity's law for large K at every K of the curves. */
function lawsAt({ law, finite }, M) {
  const sizes = BOX.curve.map((K) => sizeLaws(law, K));
  return (quantity) => {
    const form = DATA.quantities[quantity];
    if (!form) return sizes.map((row) => row[quantity] ?? NaN);
    const found = snrLaw(finite, form);
    return BOX.curve.map((K) => snrAtLarge(found, form, K, M));
  };
}

/** The quantities of those exponents of which some estimator is drawn: at another they would need transforms of their own. */
function atHand() {
  const all = Object.entries(DATA.quantities);
  const drawnExponents = new Set(all.filter(([, { estimator }]) => chosen.has(estimator)).map(([, { exponent }]) => exponent));
  return Object.fromEntries(all.filter(([, { exponent }]) => exponent === 1 || drawnExponents.has(exponent)));
}

/** Puts numbers where they are read; … where they are still to come. */
function write(now, quantities) {
  for (const readout of document.querySelectorAll("data")) {
    const name = readout.id.slice(0, -"-value".length), value = now[name];
    readout.value = String(value ?? "");
    readout.textContent = name in DATA.quantities && !(name in quantities) ? WORDS.wait : number(value);
  }
}

function update(settleAfter = 400) {
  const state = lawOf(setting), { law, finite } = state, { K, M } = setting;
  const quantities = atHand(), now = finite.numbers(quantities, K, M);
  for (const name of NAMES) {
    const slider = byId(name), text = DATA.texts[name] ? setting[name].toFixed(DATA.texts[name]) : String(setting[name]);
    slider.value = VALUES[name].indexOf(setting[name]);
    slider.setAttribute("aria-valuetext", `${text} ${DATA.spoken[name]}`);
    byId(`${name}-value`).textContent = text;
    for (const place of document.querySelectorAll(`[data-setting="${name}"]`)) place.textContent = text;
  }
  write(now, quantities);
  for (const [name, text] of Object.entries(asides(law, now))) byId(`${name}-aside`).textContent = text;
  for (const box of document.querySelectorAll("[data-draw]")) box.checked = chosen.has(box.dataset.draw);
  byId("code-names").textContent = Object.keys(ESTIMATORS).filter((name) => chosen.has(name)).map((name) => `"${name}"`).join(", ");
  for (const button of document.querySelectorAll("[data-preset]")) {
    const preset = DATA.presets[button.dataset.preset];
    button.setAttribute("aria-pressed", String(NAMES.every((name) => preset[name] === setting[name])));
  }
  drawWeights(law, now);
  draw(now, curvesAt(state, M), lawsAt(state, M));
  clearTimeout(settling); // at the end of a drag, not at each step of it
  const settle = () => {
    write(finite.numbers(DATA.quantities, K, M), DATA.quantities);
    byId("summary").textContent = summary(law, now);
  };
  if (settleAfter) settling = setTimeout(settle, settleAfter);
  else settle();
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
for (const box of document.querySelectorAll("[data-draw]")) {
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(box.dataset.draw);
    else chosen.delete(box.dataset.draw);
    later();
  });
}
window.addEventListener("hashchange", () => {
  Object.assign(setting, DATA.default);
  chosen = new Set(DATA.drawn);
  readHash();
  update();
});
byId("controls").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["sliders", "presets", "estimators"]) byId(name).disabled = false;
readHash();
update(0);
