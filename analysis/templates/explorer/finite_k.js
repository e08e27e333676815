// All numbers of one law at any number of particles K, with S = Σ_k w_k and Λ(t) = E e^{-tw}:
//   log Z - L_K      = ∫ (Λ^K - e^{-Kt}) du                                                            t = e^u
//   E[S² / Σ w²]     = ∫ t {K E[w² e^{-tw²}] Λ₂^{K-1} + K(K-1) E[w e^{-tw²}]² Λ₂^{K-2}} du,   Λ₂(t) = E e^{-tw²}
// and the gradients' from the moments of `Gradients`, one for each exponent of the weights. A gradient is given as
// { exponent, pooled, terms }, the terms [power, factors] of the coefficients of the derivatives in `DERIVATIVES`.

"use strict";

/** Derivatives along the shift, in units of 1/σ: constant and slope in the noise ε. */
const DERIVATIVES = {
  model: ({ shift, width }) => [1 + shift, width], // of log p(x, z) by the prior's mean: z less that mean
  path: ({ shift, width, beta }) => [-shift, -beta / width], // of log w by the particle
  score: ({ width }) => [0, 1 / width], // of log q by the proposal's mean
};

/** The largest number of particles: 10⁶, in 1000 groups that may share their normalisation. */
const LARGEST = 1e9;

/** All finite-K numbers of one law; `largest` is the largest K that will be asked for, `forms` the gradients. */
class FiniteK {
  constructor(law, largest, forms) {
    Object.assign(this, { law, largest, forms, gradients: new Map(), known: new Map() });
    this.prepareSizes();
  }

  /** The moments of an exponent's gradients; their transforms are made when they are first asked for. */
  gradientsOf(exponent) {
    if (!this.gradients.has(exponent)) {
      const forms = this.forms.filter((form) => form.exponent === exponent);
      const used = forms.map(({ terms }) => terms.map(([power]) => power));
      this.gradients.set(exponent, new Gradients(this.law, exponent, used, this.largest));
    }
    return this.gradients.get(exponent);
  }

  prepareSizes() {
    const { law } = this, left = (n) => Math.max(-n, -law.maxPower / 2), right = -law.minPower / 2;
    const moment = ([a, b]) => exp(law.logMomentComplex(-2 * a, -2 * b));
    const half = (s) => exp(difference(s, 0.5));
    const members = [
      { left: left(1), right: 0, integrand: moment }, // Λ₂ - 1
      { left: 0, right, integrand: moment },
      { left: left(0.5), right, integrand: (s) => times(moment(s), half(s)) },
      { left: left(1), right, integrand: (s) => times(moment(s), s) },
    ];
    const family = new Family(law, 2, members);
    this.u2 = grid(-2 * Math.log(this.largest) - 1.5 * ENDS, ends(family, 1)); // begins like t^(2/3), at worst
    const [less, base, first, second] = family.on(this.u2);
    Object.assign(this, { log2: logs(less, base), first, second });
  }

  /** Gap, ess and ratios at K and M; without those of estimators that need more particles. */
  numbers(quantities, K, M) {
    const ratios = Object.entries(quantities).filter(([, { least }]) => K >= least);
    const found = ratios.map(([name, form]) => [name, this.snr(form, K, M)]);
    return { gap: this.gap(K), ess: this.ess(K), ...Object.fromEntries(found) };
  }

  /** The gap at K. [nats] */
  gap(K) {
    return K === 1 ? -this.law.meanLog() : this.gradientsOf(1).gap(K);
  }

  /** E[S² / Σ w²]. */
  ess(K) {
    if (K === 1) return 1;
    const { u2, log2, first, second } = this;
    let total = 0;
    for (let i = 0; i < u2.length; i++) {
      const fewer = Math.exp((K - 2) * log2[i]);
      total += fewer * (K * Math.exp(log2[i]) * second[i] + K * (K - 1) * first[i] * first[i]);
    }
    return total * STEP;
  }

  /** The signal-to-noise ratio of a gradient at K and M; NaN for 0/0, and where K is too small. */
  snr(form, K, M) {
    if (K < form.least) return NaN;
    const [particles, groups] = form.pooled ? [K * M, 1] : [K, M];
    const [mean, variance] = particles === 1 ? this.one(form) : this.several(form, particles);
    if (variance > 0) return (Math.sqrt(groups) * Math.abs(mean)) / Math.sqrt(variance);
    return mean === 0 ? NaN : Infinity;
  }

  /** Constant and slope in the noise of a term's derivatives. */
  linear(factors) {
    let constant = 0, slope = 0;
    for (const [name, factor] of Object.entries(factors)) {
      const [c, s] = DERIVATIVES[name](this.law);
      constant += factor * c;
      slope += factor * s;
    }
    return [constant, slope];
  }

  /** Mean and variance at K = 1, where all normalised weights are 1. */
  one({ terms }) {
    const total = {};
    for (const [, factors] of terms) {
      for (const [name, factor] of Object.entries(factors)) total[name] = (total[name] ?? 0) + factor;
    }
    const [mean, slope] = this.linear(total);
    return [mean, slope * slope];
  }

  several(form, K) {
    const { mean: limit, factors } = this.split(form), key = `${form.exponent},${K}`;
    if (!this.known.has(key)) this.known.set(key, this.gradientsOf(form.exponent).at(K));
    const { mean, cov } = this.known.get(key);
    let variance = 0;
    factors.forEach((a, i) => factors.forEach((b, j) => { variance += a * b * cov[i][j]; }));
    return [limit + dot(factors, mean), variance];
  }

  /** A gradient's constant, and its factors of the variables of `Gradients`. */
  split({ exponent, terms }) {
    const gradients = this.gradientsOf(exponent), { parts } = gradients, factors = parts.map(() => 0);
    let mean = 0;
    for (const [r, derivatives] of terms) {
      const center = gradients.center(r), [, slope] = this.linear(derivatives);
      const value = this.tilted(derivatives, center * exponent);
      if (r < 2) mean += value;
      parts.forEach((part, i) => {
        if (part.r === r) factors[i] += part.noise ? slope : value;
      });
    }
    return { mean, factors };
  }

  /** The mean of a term's derivatives under the density ∝ w^s q, that of ε being -s·width·shift / (1 + sβ). */
  tilted({ model = 0, path = 0, score = 0 }, s) {
    const { shift, beta } = this.law;
    return model + (shift * ((1 - s) * model - path - s * score)) / (1 + s * beta);
  }
}

/** log Γ(s + shift) - log Γ(s). */
function difference(s, shift) {
  const [a, b] = logGamma(s[0] + shift, s[1]), [c, d] = logGamma(s[0], s[1]);
  return [a - c, b - d];
}
