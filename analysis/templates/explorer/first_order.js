// The laws for large K, by the leading terms of means and variances, where the moments exist.

"use strict";

/** The gap and the expected sample size to first order in 1/K; nothing if Var[w] is infinite. */
function sizeLaws(law, K) {
  const variance = law.variance();
  return Number.isFinite(variance) ? { gap: variance / (2 * K), ess: K / (1 + variance) } : {};
}

/** SNR ≈ constant · √M · K^exponent: [constant, exponent], NaN without such a law; `finite` is the law's FiniteK. */
function snrLaw(finite, { exponent, terms }) {
  const law = finite.law.power(exponent), slope = law.width * law.shift;
  /** E[v^a Π (constant + slope ε)] of at most two factors; NaN if it does not exist. */
  const moment = (a, ...lines) => {
    const inside = 1 + a * law.beta, center = (-a * slope) / inside;
    if (!(inside > 0)) return NaN;
    const values = lines.map(([c, s]) => c + s * center), size = Math.exp(law.logMoment(a));
    const spread = lines.length === 2 ? (lines[0][1] * lines[1][1]) / inside : 0;
    return size * (values.reduce((x, y) => x * y, 1) + spread);
  };
  const lines = new Map(terms.map(([r, derivatives]) => [r, finite.linear(derivatives)]));
  const limit = sum(terms.map(([r, derivatives]) => (r < 2 ? finite.tilted(derivatives, r * exponent) : 0)));
  const centered = (r) => { // less its mean; 0 without a term
    const s = lines.get(r)?.[1] ?? 0;
    return [(s * r * slope) / (1 + r * law.beta), s];
  };
  const first = centered(0), second = centered(1), powers = [...lines.keys()].filter((r) => r > 1).sort((a, b) => a - b);
  const scale = Math.max(...[...lines.values()].flat().map(Math.abs)), lowest = powers[0];
  let mean = limit, order = 0;
  if (Math.abs(limit) <= 1e-12 * scale) {
    order = second[1] !== 0 || lowest === 2 ? -1 : 1 - lowest;
    mean = order === -1 ? moment(2, lines.get(2) ?? [0, 0]) - moment(2, second) : moment(lowest, lines.get(lowest));
  }
  let variance, fall = -1;
  if (first[1] !== 0 || second[1] !== 0) {
    variance = moment(0, first, first) + 2 * moment(1, first, second) + moment(2, second, second);
  } else {
    const r = lowest, line = lines.get(r) ?? [0, 0], mu = moment(r, line);
    fall = 1 - 2 * r;
    variance = moment(2 * r, line, line) - 2 * r * mu * moment(r + 1, line) + mu * mu * (r * r * moment(2) - (r - 1) ** 2);
  }
  return variance > 0 && mean !== 0 ? [Math.abs(mean) / Math.sqrt(variance), order - fall / 2] : [NaN, NaN];
}

/** That law at K and M. */
function snrAtLarge([constant, exponent], { pooled }, K, M) {
  return pooled ? constant * (K * M) ** exponent : constant * Math.sqrt(M) * K ** exponent;
}
