// Small tools of the quadratures over t = e^u: grids, their ends, polynomials.

"use strict";

const STEP = 0.25;
/** log of the relative size at which integrands, products of two transforms or more, are cut. */
const ENDS = 30;
const factorials = [1];
for (let n = 1; n < 100; n++) factorials.push(n * factorials[n - 1]);
/** 1 / Γ(n). */
const inverseGamma = (n) => (n > 0 ? 1 / factorials[n - 1] : 0);
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** The coefficients of q(u) = 1 - r u^{r-1} + (r-1) u^r. */
function remainder(r) {
  const found = new Array(r + 1).fill(0);
  found[0] += 1;
  found[r - 1] -= r;
  found[r] += r - 1;
  return found;
}

function convolved(some, others) {
  const found = new Array(some.length + others.length - 1).fill(0);
  some.forEach((a, i) => others.forEach((b, j) => { found[i + j] += a * b; }));
  return found;
}

function polynomial(coefficients, x) {
  let found = 0;
  for (let j = coefficients.length - 1; j >= 0; j--) found = found * x + coefficients[j];
  return found;
}

function dot(some, others) {
  let found = 0;
  for (let i = 0; i < some.length; i++) found += some[i] * others[i];
  return found;
}

/** log Λ from Λ - 1, as long as that is small, then from Λ. */
function logs(less, whole) {
  const turn = less.findIndex((value) => value < -0.5);
  return whole.map((value, i) => Math.min(0, i < turn ? Math.log1p(less[i]) : Math.log(Math.max(value, 1e-300))));
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
