// Laplace transforms of the weight by Mellin–Barnes contours. For t = e^u on a uniform grid,
//   t^{a/p} E[w^a g e^{-t w^p}] = (1/2πi) ∫ Γ(s + a/p) E[w^{-ps} g] t^{-s} ds,   Re s = c,
// by the midpoint rule, which converges exponentially. The transforms of a family share p, and the nodes on a contour.
// For each t the contour is the one on which the integrand is smallest: near the saddle point nothing cancels.

"use strict";

/** log of the relative size at which aliases and the ends of contours are dropped. */
const DIGITS = 31;
/** The relative size of nodes that end a contour. */
const ENOUGH = 1e-15;
/** What an integrand may lose against the smallest one for the sake of a longer step, in nats. */
const TOLERATED = 5;
/** Contours right of this serve t at which Λ is below any size that counts. */
const FARTHEST = 12;

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const over = ([a, b], [c, d]) => {
  const size = c * c + d * d;
  return [(a * c + b * d) / size, (b * c - a * d) / size];
};
const exp = ([a, b]) => {
  const size = Math.exp(a);
  return [size * Math.cos(b), size * Math.sin(b)];
};
const expm1 = ([a, b]) => {
  const grown = Math.expm1(a), turned = -2 * Math.sin(0.5 * b) ** 2;
  return [grown * (1 + turned) + turned, (1 + grown) * Math.sin(b)];
};

/**
 * The transforms of `members`, each { left, right, integrand(at) }: Γ(s) times it is analytic in that strip. `at` is what
 * members share at an s, made by `prepare`.
 */
class Family {
  constructor(law, p, members, prepare = (s) => s) {
    Object.assign(this, { law, p, members, prepare });
    this.contours = this.abscissae().map((c) => ({ c, sizes: this.sizes(c) }));
  }

  /** Abscissae: a fraction of a saddle point's width apart, and ever closer toward a singularity of the moments. */
  abscissae() {
    const { law, p, members } = this;
    const left = Math.min(...members.map((m) => m.left)), right = Math.max(...members.map((m) => m.right));
    const advance = (c, edge) => {
      const inside = 1 - p * c * law.beta;
      const variance = 0.5 * law.dimension * (law.beta / inside) ** 2 + (law.width * law.shift) ** 2 / inside ** 3;
      return Math.min(1 / Math.max(p * Math.sqrt(variance), 3), 0.3 * Math.abs(edge - c));
    };
    const start = Math.min(0.4, 0.5 * right), found = [];
    for (let c = start; right - c > 0.1 * Math.min(right, 1) && c < FARTHEST; c += advance(c, right)) found.push(c);
    for (let c = start - advance(start, left); c - left > 0.04; c -= advance(c, left)) found.push(c);
    for (const { left: low, right: high } of members) { // a strip that these hardly meet has some of its own
      if (found.filter((c) => c > low && c < high).length > 2) continue;
      found.push(...[0.1, 0.2, 0.35, 0.5, 0.7].map((share) => low + share * Math.min(high - low, 1)));
    }
    // off the poles of Γ: where a zero of the moment cancels one, the value would be 0/0
    return found.map((c) => (Math.abs(c - Math.round(c)) < 0.02 ? c + 0.043 : c)).sort((a, b) => a - b);
  }

  /** Γ(s) times each member's integrand at s = c + iy. */
  values(c, y) {
    const gamma = exp(logGamma(c, y)), at = this.prepare([c, y]);
    return this.members.map((member) => times(gamma, member.integrand(at)));
  }

  /** log of the integrands' sizes on a contour at t = 1; Infinity outside a member's strip, or beyond floats. */
  sizes(c) {
    const near = 1 / Math.max(1, this.p * this.law.spread);
    const all = [0.03, 0.2, 0.6].map((y) => this.values(c, y * near));
    return this.members.map(({ left, right }, k) => {
      const size = Math.log(Math.max(...all.map((values) => Math.hypot(...values[k]))));
      return c > left && c < right && size < 600 ? size : Infinity;
    });
  }

  /** The transforms on the grid u: an array for each member. */
  on(grid) {
    const found = this.members.map(() => new Float64Array(grid.length)), work = new Map();
    this.members.forEach((_, k) => {
      for (const part of this.segments(grid, k)) {
        if (part.step > 0) work.set(part.contour, [...(work.get(part.contour) ?? []), { ...part, k }]);
      }
    });
    for (const [contour, parts] of work) this.add(found, grid, this.contours[contour].c, parts);
    return found;
  }

  /** Which contour serves member k where: [{ contour, step, start, stop }], in order, all of the grid. */
  segments(grid, k) {
    const inside = (j) => this.contours[j]?.sizes[k] < Infinity; // with a neighbour on either side, for the step
    const usable = [...this.contours.keys()].filter((j) => inside(j - 1) && inside(j) && inside(j + 1));
    const loss = (j, i) => this.contours[j].sizes[k] - this.contours[j].c * grid[i];
    const allowed = grid.map((_, i) => Math.min(...usable.map((j) => loss(j, i))) + TOLERATED);
    const parts = [];
    for (let start = 0; start < grid.length; start = parts.at(-1).stop) {
      let most = -Infinity, part;
      for (const contour of usable) {
        let stop = start;
        while (stop < grid.length && loss(contour, stop) <= allowed[stop]) stop++;
        if (stop === start) continue;
        const step = Math.min(this.step(contour, k, grid[start]), this.step(contour, k, grid[stop - 1]));
        const gain = Math.log(step) + 0.5 * Math.log(stop - start); // few nodes, and for many t
        if (gain > most || !part) [most, part] = [gain, { contour, step, start, stop }];
      }
      parts.push(part);
    }
    return parts;
  }

  /** The longest step whose aliases stay small at this u, from the sizes of neighbouring contours; 0 for nothing. */
  step(contour, k, u) {
    const { c, sizes } = this.contours[contour];
    if (sizes[k] === -Infinity) return 0;
    const longest = [0, 0];
    for (const other of this.contours) {
      const gap = other.c - c, rise = other.sizes[k] - sizes[k] - gap * u;
      if (gap === 0 || !(rise < Infinity)) continue;
      const side = gap > 0 ? 1 : 0;
      longest[side] = Math.max(longest[side], (2 * Math.PI * Math.abs(gap)) / Math.max(DIGITS + rise, 4));
    }
    return Math.min(...longest);
  }

  /** Sums one contour's nodes into the parts of the transforms that use it. */
  add(found, grid, c, parts) {
    const step = Math.min(...parts.map((part) => part.step)), distance = grid[1] - grid[0];
    const largest = parts.map(() => 0);
    for (let n = 0, quiet = 0; quiet < 3; n++) {
      const y = (n + 0.5) * step, values = this.values(c, y), turnRe = Math.cos(y * distance);
      const turnIm = -Math.sin(y * distance);
      let some = false;
      parts.forEach(({ k, start, stop }, index) => {
        let [re, im] = values[k];
        const size = Math.hypot(re, im), target = found[k];
        largest[index] = Math.max(largest[index], size);
        if (size < largest[index] * ENOUGH) return;
        some = true;
        const cos = Math.cos(y * grid[start]), sin = -Math.sin(y * grid[start]);
        [re, im] = [re * cos - im * sin, re * sin + im * cos];
        for (let i = start; i < stop; i++) {
          target[i] += re;
          const next = re * turnRe - im * turnIm;
          im = re * turnIm + im * turnRe;
          re = next;
        }
      });
      quiet = some ? 0 : quiet + 1;
    }
    for (const { k, start, stop } of parts) {
      for (let i = start; i < stop; i++) found[k][i] *= (step / Math.PI) * Math.exp(-c * grid[i]);
    }
  }
}
