// What methods make of two tasks: their Gramian and their losses in, weights out. These are the formulas of mtl_core/smtos
// with every option at its default; a test holds both equal. A method with a memory is asked as it is at its first step,
// CDTT at its eleventh, all steps alike. After a task without gradient is left out, one may remain: K is 1 or 2.

export const dot = (v, w) => v.reduce((sum, x, k) => sum + x * w[k], 0);
const total = (v) => v.reduce((sum, x) => sum + x, 0);
const over = (v, s) => v.map((x) => x / s);
const clip = (x) => Math.min(Math.max(x, 0), 1);
const root = (x) => Math.sqrt(Math.max(x, 0)); // of what rounding may have made negative
const diagonal = (G) => G.map((row, k) => row[k]);
const norms = (G) => diagonal(G).map(Math.sqrt);
const lengthOf = (G, w) => root(dot(w, gains(G, w)));
const meanLength = (G) => root(total(G.flat()) / G.length ** 2);

// -- what several methods share ----------------------------------------------------------------------------------------

/** How fast the losses fall to first order along the update: G w. */
export function gains(G, w) {
  return G.map((row) => dot(row, w));
}

function scaledBy(G, s) {
  return G.map((row, i) => row.map((x, j) => x / (s[i] * s[j])));
}

function cosines(G) {
  const n = norms(G);
  return G.map((row, i) => row.map((x, j) => x / n[j] / n[i]));
}

/** 1 + cos of the angle: half the squared length of the sum of the unit gradients; 1 where there is one. */
const together = (C) => (C.length === 1 ? 1 : 1 + C[0][1]);

/** Weights of the shortest convex combination of the gradients. */
export function minNorm(G) {
  if (G.length === 1) return [1];
  const [[a, b], [, d]] = G;
  const distance = a + d - 2 * b; // |g₁ − g₂|²
  if (distance <= 1e-15 * (a + d)) return [0.5, 0.5];
  return [clip((d - b) / distance), clip((a - b) / distance)];
}

/** Whether 0 is in the convex hull of the unit gradients. */
export function isStationary(G) {
  const C = cosines(G);
  if (C.flat().every((x) => x >= 0)) return false;
  const w = minNorm(C);
  return dot(w, gains(C, w)) <= 1e-10;
}

function bisector(G) {
  const n = norms(G);
  const w = minNorm(cosines(G)).map((x, k) => x / n[k]);
  return over(w, total(w));
}

function atMostOneLong(G, w) {
  const length = lengthOf(G, w);
  return length <= 1 ? w : over(w, length);
}

/** argmin g_w·g₀ + c |g₀| |g_w| over the simplex. */
function cagradDual(G, c) {
  if (G.length === 1) return [1];
  const [[a, b], [, d]] = G;
  const distance = a + d - 2 * b;
  const squared = (a + d + 2 * b) / 4; // |g₀|²
  if (Math.min(distance, squared) <= 1e-15 * (a + d)) return [0.5, 0.5];
  const slope = (a - d) / 2;
  const room = c * c * squared * distance - slope * slope;
  let t = 0;
  if (slope !== 0 && room <= 0) t = slope > 0 ? -Infinity : Infinity;
  else if (slope !== 0) t = (-slope * Math.sqrt(Math.max(a * d - b * b, 0) / room)) / distance;
  return [clip((d - b) / distance + t), clip((a - b) / distance - t)];
}

/** From the mean gradient, c |g₀| in the direction of g_w, over 1 + c². */
function toward(G, w, c) {
  const length = lengthOf(G, w);
  const pull = length > 1e-5 * dot(w, norms(G)) ? (c * meanLength(G)) / length : 0;
  return w.map((x) => (1 / w.length + pull * x) / (1 + c * c));
}

// -- the methods that read the Gramian ---------------------------------------------------------------------------------

function alignedMTL(G) {
  if (G.length === 1) return [1];
  const [[a, b], [, d]] = G;
  const [middle, half] = [(a + d) / 2, (a - d) / 2];
  const radius = Math.hypot(half, b);
  if (radius === 0) return [0.5, 0.5];
  const [least, most] = [middle - radius, middle + radius]; // the eigenvalues
  const kept = least > most * 2 * 2 ** -23; // ε of float32
  const onMost = [(1 + (half + b) / radius) / 4, (1 + (b - half) / radius) / 4]; // equal weights, projected on its axis
  const factor = kept ? Math.sqrt(least / most) : 1;
  return onMost.map((x) => factor * x + (kept ? 0.5 - x : 0));
}

const cagrad = (G) => toward(G, cagradDual(G, 0.5), 0.5);

function imgrad(G) {
  const [w, c] = [minNorm(G), 0.8];
  const length = lengthOf(G, w);
  const along = dot(w, gains(G, w.map(() => 1 / w.length))); // g_w·g₀
  const kappa = length <= 1e-5 * dot(w, norms(G)) ? 0 : Math.min(along / (length * meanLength(G)), 1);
  return toward(G, cagradDual(G, (c * kappa) / (1.5 - kappa)), c);
}

function cdtt(G, losses) {
  const [center, n, alpha] = [bisector(G), norms(G), 0.2];
  const v = [...center];
  G.forEach((_, k) => {
    const difference = center.map((x, j) => (j === k ? 1 : 0) - x); // weights of g_k − c
    const distance = lengthOf(G, difference);
    if (distance <= 1e-7 * n[k]) return;
    const rho = 1 + Math.log10(losses[k]);
    const tension = alpha / (1 + Math.exp(Math.E * (1 - rho))) + 1 - alpha;
    difference.forEach((x, j) => (v[j] += (tension / distance) * x));
  });
  G.forEach((row, k) => {
    const projection = dot(row, v) / n[k];
    if (projection >= 0) return;
    const scale = n[k] / (n[k] - projection);
    v.forEach((x, j) => (v[j] = x * scale));
    v[k] -= (scale * projection) / n[k];
  });
  return v;
}

function config(G) {
  const [n, C] = [norms(G), cosines(G)];
  const y = G.map(() => 1 / together(C));
  const projections = gains(C, y);
  return y.map((x, k) => ((dot(n, projections) / dot(y, projections)) * x) / n[k]);
}

/** G w = w^(−1/2): for unit gradients C b = (n b)^(−1/2), of which the ratio b₂ / b₁ is the root of a rising function. */
function fairgrad(G) {
  const n = norms(G);
  if (G.length === 1) return atMostOneLong(G, [n[0] ** (-4 / 3)]);
  const c = cosines(G)[0][1];
  const apart = Math.log(n[0] / n[1]) / 2;
  const excess = (t) => Math.log((c + t) / (1 + c * t)) + Math.log(t) / 2 - apart;
  let [low, high] = c < 0 ? [Math.log(-c), -Math.log(-c)] : [-2 * Math.abs(apart) - 50, 2 * Math.abs(apart) + 50];
  for (let i = 0; i < 200 && high - low > 0; i++) {
    const half = (low + high) / 2;
    if (half <= low || half >= high) break;
    if (excess(Math.exp(half)) > 0) high = half;
    else low = half;
  }
  const t = Math.exp((low + high) / 2);
  const first = (Math.sqrt(n[0]) * (1 + c * t)) ** (-2 / 3);
  return atMostOneLong(G, [first / n[0], (first * t) / n[1]]);
}

/** Equal projections, of two tasks those of the bisector. */
function imtlG(G) {
  const inverse = norms(G).map((n) => 1 / n);
  return over(inverse, total(inverse));
}

function mgda(G, losses) {
  const n = norms(G);
  return minNorm(scaledBy(G, n.map((x, k) => x * losses[k])));
}

const nashMTL = (G) => atMostOneLong(G, norms(G).map((n) => 1 / (n * Math.sqrt(together(cosines(G))))));

/** Each gradient loses what conflicts with the other. */
function pcgrad(G) {
  const conflict = G.length === 1 ? 0 : Math.min(G[0][1], 0);
  return G.map((row, k) => (1 - conflict / row[k]) / G.length);
}

function upgrad(G) {
  const [n, C] = [norms(G), cosines(G)];
  if (C.flat().every((x) => x >= 0)) return G.map(() => 1 / G.length);
  const t = -C[0][1] / (1 + 1e-8);
  return [(1 + (t * n[1]) / n[0]) / 2, (1 + (t * n[0]) / n[1]) / 2];
}

// -- all of them, and the edges ----------------------------------------------------------------------------------------

/** By key: `gramian` or `losses`, the function to weights; `averages`: a mean over all tasks, also those left out;
 * `bargains`: there is no solution where no step helps both; `positive`: a loss of 0 counts as 1e-12. */
export const METHODS = {
  unit_scal: { losses: (L) => L.map(() => 1 / L.length) },
  cagrad: { gramian: cagrad, averages: true },
  cdtt: { gramian: cdtt, positive: true },
  edm: { gramian: bisector },
  imtl: { gramian: imtlG, positive: true },
  mgda_ub: { gramian: mgda, positive: true },
  nash_mtl: { gramian: nashMTL, bargains: true },
  pcgrad: { gramian: pcgrad, averages: true },
  si: { losses: (L) => L.map((x) => 1 / (L.length * x)), positive: true },
  aligned_mtl: { gramian: alignedMTL, averages: true },
  fairgrad: { gramian: fairgrad, bargains: true },
  imgrad: { gramian: imgrad, averages: true },
  imtl_g: { gramian: imtlG },
  mgda: { gramian: mgda, positive: true },
  upgrad: { gramian: upgrad, averages: true },
  config: { gramian: config, bargains: true },
  gls: { losses: (L) => L.map((x) => Math.exp(total(L.map(Math.log)) / L.length) / (L.length * x)), positive: true },
  gradvac: { gramian: pcgrad, averages: true }, // with all targets 0, as at its first step
};

/** Weights of a method for two tasks, any Gramian and losses. */
export function solve(key, gramian, losses) {
  const method = METHODS[key];
  if (!method) throw new Error(`the playground has no method called ${key}.`);
  const L = method.positive ? losses.map((x) => Math.max(x, 1e-12)) : losses;
  if (method.losses) return method.losses(L);
  const n = norms(gramian);
  const active = [0, 1].filter((k) => n[k] > 1e-12 * Math.max(...n));
  const G = active.map((i) => active.map((j) => gramian[i][j]));
  const weights = [0, 0];
  if (!active.length || (method.bargains && isStationary(G))) return weights;
  const share = method.averages ? active.length / 2 : 1;
  method.gramian(G, active.map((k) => L[k])).forEach((w, i) => (weights[active[i]] = share * w));
  return weights;
}
