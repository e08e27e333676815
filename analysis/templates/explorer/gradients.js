// Gradients at any K, of every estimator at once. With v = w^e / E w^e, S = Σ v and a particle's derivatives G_r, linear
// in its noise ε, a gradient is Σ_r Σ_k v_k^r G_r / S^r (r = 0: an average). So it is a constant plus a combination of
//   A = Σ ε / K (r = 0),   A = Σ v η₁ / S (r = 1),   B = Σ v^r / S^r and C = Σ v^r η_r / S^r (r > 1),
// η_r = ε less its mean under the density ∝ v^r q, whose means and covariances no estimator enters. Each is Σ f / S^r, with
//   E[Σ f / S^r]           = K/Γ(r) ∫ t^r E[f e^{-tv}] Λ^{K-1} du                                     t = e^u
//   E[Σ f / S^r Σ g / S^p] = 1/Γ(r+p) ∫ t^{r+p} {K E[f g e^{-tv}] Λ^{K-1} + K(K-1) E[f e^{-tv}] E[g e^{-tv}] Λ^{K-2}} du
// B hardly varies at large K. There, with μ = E v^r, f = v^r - rμv + (r-1)μ, u = K/S and q = 1 - r u^{r-1} + (r-1) u^r,
//   B = K^{1-r} μ + Σ f / S^r - K^{1-r} μ q(u).

"use strict";

/** E w^s is as good as missing where 1 + sβ is below this: the density ∝ w^s q is far from q. */
const LEAST = 0.2;

/** What integrands share at one s: moments at s + j, and factors of Γ(s + n) / Γ(s). */
class Node {
  constructor(law, s) {
    Object.assign(this, { law, s, known: [], rising: [[1, 0]] });
  }

  /** E v^{-(s+j)}, and under the density ∝ v^{-(s+j)} q the variance of ε, `inverse`, and the mean of an η. */
  at(j) {
    if (this.known[j]) return this.known[j];
    const { law, s: [a, b] } = this, re = a + j;
    const inverse = over([1, 0], [1 - re * law.beta, -b * law.beta]), slope = law.width * law.shift;
    const means = [], mean = (center) => {
      if (means[center]) return means[center];
      const scale = slope / (1 + center * law.beta);
      return (means[center] = times([scale * (re + center), scale * b], inverse));
    };
    return (this.known[j] = { moment: exp(law.logMomentComplex(-re, -b)), inverse, mean });
  }

  /** Γ(s + n) / Γ(s). */
  risen(n) {
    const { rising, s: [a, b] } = this;
    while (rising.length <= n) rising.push(times(rising.at(-1), [a + rising.length - 1, b]));
    return rising[n];
  }
}

/** t^n E[f e^{-tv}] of f = Σ factor · v^power Π η, `noise` the centers of the η; f's mean is 0 if it is `centered`. */
function member(law, n, terms, centered = false) {
  const powers = terms.map(({ power }) => power), used = terms.filter(({ factor }) => factor !== 0);
  const integrand = (node) => {
    let re = 0, im = 0;
    for (const { power, factor, noise } of used) {
      const { moment, inverse, mean } = node.at(n - power);
      let value = moment;
      if (noise.length === 1) value = times(moment, mean(noise[0]));
      if (noise.length === 2) {
        const [a, b] = times(mean(noise[0]), mean(noise[1]));
        value = times(moment, [a + inverse[0], b + inverse[1]]);
      }
      re += factor * value[0];
      im += factor * value[1];
    }
    return times(node.risen(n), [re, im]);
  };
  const left = Math.max(-n - (centered ? 1 : 0), Math.max(...powers) - n - law.maxPower);
  return { left, right: -law.minPower - (n - Math.min(...powers)), integrand };
}

const product = (some, others) => some.flatMap((one) => others.map((other) => ({
  power: one.power + other.power, factor: one.factor * other.factor, noise: [...one.noise, ...other.noise],
})));

/** Means and covariances of A, B and C for one exponent; `used` is an array of sets of powers that go together. */
class Gradients {
  constructor(whole, exponent, used, largest) {
    Object.assign(this, { whole, exponent, law: whole.power(exponent), largest });
    this.parts = this.variables([...new Set(used.flat())].sort((a, b) => a - b));
    const together = ({ r }, other) => used.some((powers) => powers.includes(r) && powers.includes(other.r));
    this.pairs = this.parts.flatMap((one, i) => this.parts.slice(i).filter((other) => together(one, other))
      .map((other) => [one, other]));
    this.transform();
  }

  /** Each { r, noise, terms }; a B with moments also { mu, control: terms }. */
  variables(powers) {
    const { law } = this, term = (power, factor, ...noise) => ({ power, factor, noise }), found = [];
    for (const r of powers) {
      const center = this.center(r);
      if (r > 1) {
        const part = { r, noise: false, terms: [term(r, 1)] }, size = law.logMoment(r);
        if (law.shift > 0 && law.maxPower > r + 0.001 && size < 100) {
          const mu = Math.exp(size);
          Object.assign(part, { mu, control: [term(r, 1), term(1, -r * mu), term(0, (r - 1) * mu)] });
        }
        found.push(part);
      }
      found.push({ r, noise: true, terms: [term(r, 1, center)], centered: center === r });
    }
    return found;
  }

  /** Under which power's density the noise is centered. */
  center(r) {
    return r < 2 || 1 + r * this.law.beta > LEAST ? r : 1;
  }

  transform() {
    const { law, parts, pairs } = this, wanted = [];
    const want = (n, terms, centered, put) => wanted.push({ ...member(law, n, terms, centered), put });
    want(0, [{ power: 0, factor: 1, noise: [] }], true, (values) => { this.less = values; });
    wanted[0].right = 0; // beyond the pole of Γ it is Λ - 1
    const deviation = ({ s: [a, b] }) => expm1(law.logMomentComplex(-a, -b));
    wanted.push({
      left: Math.max(-2, -law.maxPower), right: -law.minPower, integrand: deviation,
      put: (values) => { this.deviation = values; },
    });
    for (const part of parts) {
      want(part.r, part.terms, part.centered, (values) => { part.first = values; });
      if (part.mu) want(part.r, part.control, true, (values) => { part.rest = values; });
    }
    this.seconds = new Map();
    const keep = (name) => (values) => this.seconds.set(name, values);
    for (const [one, other] of pairs) {
      const n = one.r + other.r, name = this.name(one, other);
      if (n === 0) continue;
      want(n, product(one.terms, other.terms), false, keep(name));
      if (one.mu || other.mu) want(n, product(one.control ?? one.terms, other.control ?? other.terms), false, keep(name + "c"));
    }
    const family = new Family(law, 1, wanted, (s) => new Node(law, s));
    this.u = grid(-Math.log(this.largest) - ENDS, ends(family, 1));
    family.on(this.u).forEach((values, k) => wanted[k].put(values));
    this.t = this.u.map(Math.exp);
    const { less, deviation: more, t } = this;
    this.log = logs(less, more.map((value, i) => value + Math.exp(-t[i])));
    this.growth = this.log.map((value, i) => { // log Λ + t
      const grown = more[i] * Math.exp(Math.min(t[i], 30));
      return t[i] < 30 && grown < 1 ? Math.log1p(grown) : value + t[i];
    });
  }

  name(one, other) {
    return `${this.parts.indexOf(one)},${this.parts.indexOf(other)}`;
  }

  /** Λ^K - e^{-Kt} on the grid. */
  difference(K) {
    return this.growth.map((value, i) => {
      const grown = K * value, decay = Math.exp(-K * this.t[i]);
      return grown < 1 ? Math.expm1(grown) * decay : Math.exp(K * this.log[i]) - decay;
    });
  }

  /** log Z - L_K, if the exponent is 1. */
  gap(K) {
    return sum(this.difference(K)) * STEP;
  }

  /** { mean, cov } of the variables at K > 1; a covariance of two that do not go together is 0. */
  at(K) {
    const { log, t, parts } = this, base = log.map(Math.exp), fewer = log.map((value) => Math.exp((K - 2) * value));
    const state = { K, fewer, power: fewer.map((value, i) => value * base[i]), tau: t.map((value) => K * value) };
    const square = Math.exp(Math.min(this.law.logMoment(2), 700));
    const late = square < 1.1 || K > Math.max(100, 10 * square);
    if (parts.some(({ mu }) => mu) && late) state.difference = this.difference(K);
    const mean = parts.map((part) => this.mean(part, state));
    const cov = parts.map(() => parts.map(() => 0)), controlled = new Set();
    if (late) {
      for (const part of parts) {
        if (part.mu && this.control(part, state, mean, cov)) controlled.add(part);
      }
    }
    for (const [one, other] of this.pairs) {
      const i = parts.indexOf(one), j = parts.indexOf(other);
      if (i === j && controlled.has(one)) continue;
      cov[i][j] = cov[j][i] = controlled.has(one) || controlled.has(other)
        ? sum(this.mixed(one, other, controlled, state))
        : this.second(one, other, state) - mean[i] * mean[j];
    }
    return { mean, cov };
  }

  mean({ r, first }, { K, power }) {
    return r === 0 ? 0 : K * STEP * inverseGamma(r) * dot(power, first);
  }

  /** E of the product of two variables, or of their Σ f / S^r where those are controlled. */
  second(one, other, { K, power, fewer }, controlled = new Set()) {
    const n = one.r + other.r, scale = (one.r ? 1 : 1 / K) * (other.r ? 1 : 1 / K);
    if (n === 0) return 1 / K;
    const [first, last] = [one, other].map((part) => (controlled.has(part) ? part.rest : part.first));
    const both = this.seconds.get(this.name(one, other) + (controlled.has(one) || controlled.has(other) ? "c" : ""));
    let found = 0;
    for (let i = 0; i < power.length; i++) {
      found += K * (power[i] * both[i] + (K - 1) * fewer[i] * first[i] * last[i]);
    }
    return scale * inverseGamma(n) * found * STEP;
  }

  /** E[q(u) Σ f / S^r] of a polynomial q, by its coefficients. */
  weighted(q, { r, first, rest }, controlled, { K, power, tau }) {
    const values = controlled ? rest : first, factors = q.map((value, j) => value * inverseGamma(r + j));
    let found = 0;
    for (let i = 0; i < power.length; i++) {
      if (power[i] > 0) found += power[i] * values[i] * polynomial(factors, tau[i]);
    }
    return (r ? K : 1) * found * STEP;
  }

  /** E[q(u)] - q(1), and the same of absolute values. */
  plain(q, { difference, tau }) {
    const factors = q.map((value, j) => value * inverseGamma(j)), absolute = factors.map(Math.abs);
    let found = 0, size = 0;
    difference.forEach((value, i) => {
      if (value > 0) {
        found += value * polynomial(factors, tau[i]);
        size += value * polynomial(absolute, tau[i]);
      }
    });
    return [found * STEP, size * STEP];
  }

  /** Mean and variance of a B by its control, unless that loses more digits; whether it did. */
  control(part, state, mean, cov) {
    const place = this.parts.indexOf(part), scale = this.scale(part, state), plain = this.second(part, part, state);
    const parts = this.mixed(part, part, new Set([part]), state), value = sum(parts);
    const size = this.plain(convolved(remainder(part.r), remainder(part.r)), state)[1] * scale ** 2;
    const lost = plain / Math.abs(plain - mean[place] ** 2);
    if (!(Math.max(...parts.map(Math.abs), size) / Math.abs(value) < lost)) return false;
    mean[place] = scale + this.rest(part, state);
    cov[place][place] = value;
    return true;
  }

  scale({ r, mu }, { K }) {
    return mu * K ** (1 - r);
  }

  /** E B less its limit. */
  rest(part, state) {
    const { r, rest } = part;
    return this.mean({ r, first: rest }, state) - this.scale(part, state) * this.plain(remainder(r), state)[0];
  }

  /** The parts of a covariance of which one variable at least is controlled. */
  mixed(one, other, controlled, state) {
    const own = controlled.has(one), its = controlled.has(other), found = [this.second(one, other, state, controlled)];
    if (own) found.push(-this.scale(one, state) * this.weighted(remainder(one.r), other, its, state));
    if (its) found.push(-this.scale(other, state) * this.weighted(remainder(other.r), one, own, state));
    if (own && its) {
      const q = convolved(remainder(one.r), remainder(other.r));
      found.push(this.scale(one, state) * this.scale(other, state) * this.plain(q, state)[0]);
    }
    const [first, last] = [[one, own], [other, its]].map(([part, yes]) =>
      (yes ? this.rest(part, state) : this.mean(part, state)));
    return [...found, -first * last];
  }
}
