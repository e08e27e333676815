// From the transforms to any number of particles K, with S = Σ_k w_k and Λ(t) = E e^{-tw}:
//   log Z - L_K          = ∫ (Λ^K - e^{-Kt}) du                                               t = e^u
//   E[Σ w^r g / S^r]     = K/Γ(r) ∫ t^r E[w^r g e^{-tw}] Λ^{K-1} du
//   E[(Σ w^r g)² / S^2r] = 1/Γ(2r) ∫ t^2r {K E[w^2r g² e^{-tw}] Λ^{K-1} + K(K-1) E[w^r g e^{-tw}]² Λ^{K-2}} du
//   E[S² / Σ w²]         = the second line's kind, with e^{-tw²} in place of e^{-tw}

"use strict";

const STEP = 0.25;
/** log of the relative size at which integrands, products of two transforms or more, are cut. */
const ENDS = 30;

/** All finite-K numbers of one law; `largest` is the largest K that will be asked for. */
class FiniteK {
  constructor(law, largest) {
    Object.assign(this, { law, largest });
    this.prepareGradients();
    this.prepareSizes();
  }

  /** Moments of Y and X under the density ∝ w^{-s} q, times E[w^{-s}]. */
  moments() {
    const { law } = this, { beta, shift, width } = law, slope = (beta / width) ** 2;
    const moment = ([a, b]) => exp(law.logMomentComplex(-a, -b));
    const inside = ([a, b]) => [1 - a * beta, -b * beta];
    const plus = ([a, b], c) => [a + c, b];
    const square = (x) => times(x, x);
    const meanY = (s) => over([shift * (1 + s[0]), shift * s[1]], inside(s));
    const meanX = (s) => over([shift, 0], inside(s));
    const spread = (s, size) => over([size, 0], inside(s));
    const sum = (...terms) => terms.reduce(([a, b], [c, d]) => [a + c, b + d]);
    return {
      moment, plus, sum,
      y: (s) => times(moment(s), meanY(s)),
      yy: (s) => times(moment(s), sum(square(meanY(s)), spread(s, width * width))),
      x: (s) => times(moment(s), meanX(s)),
      xx: (s) => times(moment(s), sum(square(meanX(s)), spread(s, slope))),
    };
  }

  prepareGradients() {
    const { law } = this, { moment, plus, sum, y, yy, x, xx } = this.moments();
    const left = (n) => Math.max(-n, -law.maxPower), right = -law.minPower;
    const rising = (s, n) => {
      let product = [1, 0];
      for (let j = 0; j < n; j++) product = times(product, plus(s, j));
      return product;
    };
    const scaled = (c, z) => [c * z[0], c * z[1]];
    const mu = (this.mu = Math.exp(law.logMoment(2)) * (law.shift / (1 + 2 * law.beta)));
    this.controlled = law.shift > 0 && law.maxPower > 2.001 && law.logMoment(2) < 100;
    const members = [
      { left: left(1), right: 0, integrand: moment }, // Λ - 1
      { left: left(2), right, integrand: (s) => expm1(law.logMomentComplex(-s[0], -s[1])) },
      { left: left(2), right, integrand: (s) => times(s, y(s)) },
      { left: left(2), right, integrand: (s) => times(rising(s, 2), yy(s)) },
      { left: left(2), right, integrand: (s) => times(rising(s, 2), x(s)) },
      { left: left(4), right, integrand: (s) => times(rising(s, 4), xx(s)) },
    ];
    if (this.controlled) {
      const one = (s) => plus(s, 1), two = (s) => plus(s, 2);
      members.push({
        left: left(3), right: right - 2,
        integrand: (s) => times(rising(s, 2), sum(x(s), scaled(-2 * mu, moment(one(s))), scaled(mu, moment(two(s))))),
      });
      members.push({
        left: left(4), right: right - 4,
        integrand: (s) => times(rising(s, 4), sum(
          xx(s), scaled(-4 * mu, x(one(s))), scaled(2 * mu, x(two(s))), scaled(4 * mu * mu, moment(two(s))),
          scaled(-4 * mu * mu, moment(plus(s, 3))), scaled(mu * mu, moment(plus(s, 4))))),
      });
    }
    const family = new Family(law, 1, members);
    this.u = grid(-Math.log(this.largest) - ENDS, ends(family, 1));
    [this.less, this.deviation, this.y, this.yy, this.x, this.xx, this.f, this.ff] = family.on(this.u);
    this.t = this.u.map(Math.exp);
    this.logBase();
  }

  /** log Λ, and log Λ + t with a relative accuracy of its own, from Λ - 1 and from Λ - e^{-t}. */
  logBase() {
    const { less, deviation, t } = this;
    this.log = logs(less, deviation.map((value, i) => value + Math.exp(-t[i])));
    this.growth = this.log.map((value, i) => {
      const more = deviation[i] * Math.exp(Math.min(t[i], 30));
      return t[i] < 30 && more < 1 ? Math.log1p(more) : value + t[i];
    });
  }

  prepareSizes() {
    const { law } = this, left = (n) => Math.max(-n, -law.maxPower / 2), right = -law.minPower / 2;
    const moment = ([a, b]) => exp(law.logMomentComplex(-2 * a, -2 * b));
    const half = (s) => exp(difference(s, 0.5));
    const members = [
      { left: left(1), right: 0, integrand: moment }, // Λ - 1
      { left: 0, right, integrand: moment },
      { left: left(0.5), right, integrand: (s) => times(moment(s), half(s)) },
      { left: left(1), right, integrand: (s) => times(moment(s), s) },
    ];
    const family = new Family(law, 2, members);
    this.u2 = grid(-2 * Math.log(this.largest) - 1.5 * ENDS, ends(family, 1)); // begins like t^(2/3), at worst
    const [less, base, first, second] = family.on(this.u2);
    Object.assign(this, { log2: logs(less, base), first, second });
  }

  /** The numbers at K: gap [nats], ess, and the mean and variance of the gradients' parts. */
  at(K) {
    const { law } = this;
    if (K === 1) {
      const { shift, width, beta } = law;
      return {
        gap: -law.meanLog(), ess: 1, meanY: shift, varY: width * width, meanX: shift, varX: (beta / width) ** 2,
      };
    }
    return { ...this.gradients(K), ess: this.ess(K) };
  }

  gradients(K) {
    const { u, t, log, growth, y, yy, x, xx } = this, pairs = K * (K - 1);
    let gap = 0, meanY = 0, secondY = 0, meanX = 0, secondX = 0;
    for (let i = 0; i < u.length; i++) {
      const fewer = Math.exp((K - 2) * log[i]), base = Math.exp(log[i]), power = fewer * base;
      gap += this.difference(i, K);
      meanY += power * y[i];
      secondY += K * power * yy[i] + pairs * fewer * y[i] * y[i];
      meanX += power * x[i];
      secondX += K * power * xx[i] + pairs * fewer * x[i] * x[i];
    }
    const mean = K * meanY * STEP;
    const result = { gap: gap * STEP, meanY: mean, varY: secondY * STEP - mean * mean };
    result.meanX = K * meanX * STEP;
    const plain = (secondX * STEP) / 6;
    result.varX = plain - result.meanX ** 2;
    const square = this.controlled ? Math.exp(this.law.logMoment(2)) : Infinity;
    if (square < 1.1 || K > Math.max(100, 10 * square)) this.control(K, result, plain / Math.abs(result.varX));
    return result;
  }

  /** Λ^K - e^{-Kt} at a point of the grid. */
  difference(i, K) {
    const grown = K * this.growth[i], decay = Math.exp(-K * this.t[i]);
    return grown < 1 ? Math.expm1(grown) * decay : Math.exp(K * this.log[i]) - decay;
  }

  /** Mean and variance of Σ w²X/S² = μ/K + Σ f/S² - (μ/K)(1 - K/S)², f = w²X - 2μw + μ, where that loses less. */
  control(K, result, lost) {
    const { u, t, log, f, ff, mu } = this, pairs = K * (K - 1);
    let second = 0, cross = 0, mean = 0, two = 0, four = 0, size = 0;
    for (let i = 0; i < u.length; i++) {
      const fewer = Math.exp((K - 2) * log[i]), power = fewer * Math.exp(log[i]), tau = K * t[i];
      if (power > 0) {
        second += K * power * ff[i] + pairs * fewer * f[i] * f[i];
        cross += K * power * f[i] * (1 - tau + (tau * tau) / 6);
        mean += K * power * f[i];
      }
      const difference = this.difference(i, K);
      if (difference > 0) {
        two += difference * (tau * tau - 2 * tau);
        four += difference * tau * (-4 + tau * (6 + tau * (-2 + tau / 6)));
        size += difference * tau * (4 + tau * (6 + tau * (2 + tau / 6)));
      }
    }
    const scale = mu / K, rest = (mean - two * scale) * STEP;
    const parts = [(second * STEP) / 6, four * STEP * scale ** 2, -2 * cross * STEP * scale, -rest * rest];
    const value = parts.reduce((a, b) => a + b);
    const largest = Math.max(...parts.map(Math.abs), size * STEP * scale ** 2);
    if (!(largest / Math.abs(value) < lost)) return;
    result.meanX = scale + rest;
    result.varX = value;
  }

  /** E[S² / Σ w²]. */
  ess(K) {
    const { u2, log2, first, second } = this;
    let total = 0;
    for (let i = 0; i < u2.length; i++) {
      const fewer = Math.exp((K - 2) * log2[i]);
      total += fewer * (K * Math.exp(log2[i]) * second[i] + K * (K - 1) * first[i] * first[i]);
    }
    return total * STEP;
  }
}

/** log Λ from Λ - 1, as long as that is small, then from Λ. */
function logs(less, whole) {
  const turn = less.findIndex((value) => value < -0.5);
  return whole.map((value, i) => Math.min(0, i < turn ? Math.log1p(less[i]) : Math.log(Math.max(value, 1e-300))));
}

/** log Γ(s + shift) - log Γ(s). */
function difference(s, shift) {
  const [a, b] = logGamma(s[0] + shift, s[1]), [c, d] = logGamma(s[0], s[1]);
  return [a - c, b - d];
}

/** The u beyond which a family's k-th transform is below e^(-ENDS/2), by the smallest of its bounds. */
function ends(family, k) {
  let end = Infinity;
  for (const { c, sizes } of family.contours) {
    if (c > 0 && sizes[k] < Infinity && sizes[k] > -Infinity) end = Math.min(end, (sizes[k] + 0.6 * ENDS) / c);
  }
  return Math.max(end < Infinity ? end : 0, Math.log(ENDS) + 1);
}

/** Multiples of STEP from low to high. */
function grid(low, high) {
  const first = Math.floor(low / STEP), count = Math.ceil(high / STEP) - first + 1;
  return Float64Array.from({ length: count }, (_, i) => (first + i) * STEP);
}
