// The density of log w, in units of log p(x), for the figure: by the Fourier integral of E w^{iy}, blurred by a hair.

"use strict";

const FIGURE_POINTS = 121;

/** The part of the axis that holds the density and 0; null where all weights are equal. */
function densityRange(law) {
  if (law.spread === 0) return null;
  const { dimension, shift, width, beta } = law, mean = law.meanLog();
  // log w is bounded on one side by its value at the stationary point of its quadratic form
  const edge = dimension * Math.log(width) - 0.5 * shift ** 2 + (width * shift) ** 2 / (2 * beta);
  const low = Math.min(0, beta < 0 ? Math.max(mean - 4 * law.spread, edge) : mean - 4 * law.spread);
  const high = Math.max(0, beta > 0 ? Math.min(mean + 4 * law.spread, edge) : mean + 4 * law.spread);
  const pad = 0.04 * (high - low);
  return [low - pad, high + pad];
}

/** Its values at equidistant points of a range. */
function density(law, [low, high]) {
  const range = high - low, step = Math.PI / (1.5 * range), blur = range / 150;
  const found = new Float64Array(FIGURE_POINTS);
  for (let y = 0.5 * step; y * blur < 6.5; y += step) {
    const [re, im] = law.logMomentComplex(0, y), size = (Math.exp(re - 0.5 * (y * blur) ** 2) * step) / Math.PI;
    found.forEach((_, i) => {
      found[i] += size * Math.cos(im - y * (low + (range * i) / (FIGURE_POINTS - 1)));
    });
  }
  return found;
}

/** Round numbers on an axis, five or six at most. */
function ticks([low, high]) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((lead) => lead * power >= rough * (1 - 1e-9));
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(n * step);
  return found;
}
