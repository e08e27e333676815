// The law of one weight w = p(x,z) / (Z q(z)) of an isotropic Gaussian proposal against a Gaussian posterior.
//
// In noise ε ~ N(0, I) along and across the shift, with β = width² - 1,
//   log w = D log(width) - shift²/2 - β|ε|²/2 - width·shift·ε₁,
//   log M(s) = log E w^s = (D/2) [s log(1+β) - log(1+sβ)] + shift² s(s-1) / (2(1+sβ)).
// Under the density ∝ w^s q the noise stays Gaussian. A power of the weight in units of its mean, w^e / E w^e, is such a
// weight itself, with e·β for β and e·width·shift for width·shift: `power` is its law.
// Complex numbers are pairs re, im in plain variables: nothing is allocated in the loops.

"use strict";

const STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400];

/** log Γ(x + iy), off the poles, y ≥ 0: [re, im], im up to multiples of 2π. */
function logGamma(x, y) {
  let lostRe = 0, lostIm = 0;
  while (x < 9) {  // Γ(s) = Γ(s + 1) / s
    lostRe += 0.5 * Math.log(x * x + y * y);
    lostIm += Math.atan2(y, x);
    x += 1;
  }
  const logRe = 0.5 * Math.log(x * x + y * y), logIm = Math.atan2(y, x);
  const square = x * x + y * y, invRe = x / square, invIm = -y / square;
  const stepRe = invRe * invRe - invIm * invIm, stepIm = 2 * invRe * invIm;
  let re = (x - 0.5) * logRe - y * logIm - x + 0.9189385332046727;
  let im = (x - 0.5) * logIm + y * logRe - y;
  let powRe = invRe, powIm = invIm;
  for (const coefficient of STIRLING) {
    re += coefficient * powRe;
    im += coefficient * powIm;
    [powRe, powIm] = [powRe * stepRe - powIm * stepIm, powRe * stepIm + powIm * stepRe];
  }
  return [re - lostRe, im - lostIm];
}

/** log(1 + y) - y without cancellation. */
function log1pmx(y) {
  if (Math.abs(y) > 0.2) return Math.log1p(y) - y;
  let series = 0;
  for (let n = 26; n > 1; n--) series = y * series + (n % 2 ? 1 : -1) / n;
  return y * y * series;
}

/** log(1 + y) - y for a complex y: [re, im]. */
function log1pmxComplex(re, im) {
  if (re * re + im * im > 0.04) {
    return [0.5 * Math.log((1 + re) * (1 + re) + im * im) - re, Math.atan2(im, 1 + re) - im];
  }
  let a = 0, b = 0;
  for (let n = 26; n > 1; n--) [a, b] = [re * a - im * b + (n % 2 ? 1 : -1) / n, re * b + im * a];
  const squareRe = re * re - im * im, squareIm = 2 * re * im;
  return [squareRe * a - squareIm * b, squareRe * b + squareIm * a];
}

/** The law at one setting of dimension, shift (in posterior standard deviations) and width (proposal over posterior). */
class Law {
  constructor(dimension, shift, width, beta = (width - 1) * (width + 1)) {
    Object.assign(this, { dimension, shift, width, beta });
    this.logSlope = log1pmx(this.beta);
    // moments of order s exist for 1 + sβ > 0
    this.maxPower = this.beta < 0 ? -1 / this.beta : Infinity;
    this.minPower = this.beta > 0 ? -1 / this.beta : -Infinity;
    this.spread = Math.sqrt(this.varLog());
  }

  /** The law of w^e / E w^e, in the same noise, for e from 0 to 1. */
  power(e) {
    const width = Math.sqrt(1 + e * this.beta);
    return e === 1 ? this : new Law(this.dimension, (e * this.width * this.shift) / width, width, e * this.beta);
  }

  /** Var[log w]. */
  varLog() {
    return 0.5 * this.dimension * this.beta ** 2 + (this.width * this.shift) ** 2;
  }

  /** E[log w], which is -KL(q‖p): [nats]. */
  meanLog() {
    return 0.5 * (this.dimension * this.logSlope - this.shift ** 2);
  }

  /** log E[w^s] for a real s; Infinity where the moment does not exist. */
  logMoment(s) {
    const left = 1 + s * this.beta;
    if (!(left > 0)) return Infinity;
    const logs = s * this.logSlope - log1pmx(s * this.beta);
    return 0.5 * this.dimension * logs + (this.shift ** 2 * s * (s - 1)) / (2 * left);
  }

  /** log E[w^s] for s = re + i·im: [re, im]. */
  logMomentComplex(re, im) {
    const { beta } = this, [a, b] = log1pmxComplex(re * beta, im * beta);
    const half = 0.5 * this.dimension, square = 0.5 * this.shift ** 2;
    const topRe = re * (re - 1) - im * im, topIm = im * (2 * re - 1);
    const downRe = 1 + re * beta, downIm = im * beta, size = downRe * downRe + downIm * downIm;
    return [
      half * (re * this.logSlope - a) + (square * (topRe * downRe + topIm * downIm)) / size,
      half * (im * this.logSlope - b) + (square * (topIm * downRe - topRe * downIm)) / size,
    ];
  }

  /** Var[w]; Infinity for width² ≤ 1/2. */
  variance() {
    return Math.expm1(this.logMoment(2));
  }
}
