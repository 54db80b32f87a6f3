// The two losses of two parameters of mtl_study/teaching/landscape.py, and walks over them.
import { minNorm, solve } from "./weights.js";

const KAPPA = 5e-6;
const NEAR = 0.5; // a walk has arrived once it is as near to the optimum
const [BETA, BETA_SQUARE, EPSILON] = [0.9, 0.999, 1e-8]; // Adam's

/** Losses and gradients, rows are losses, at a point. */
export function parts([x1, x2]) {
  const [bend, gate] = [Math.tanh(x2), Math.tanh(0.5 * x2)];
  const [above, below] = [Math.max(gate, 0), Math.max(-gate, 0)];
  const slope = 0.5 * (1 - gate * gate);
  const losses = [];
  const gradients = [];
  for (const [sign, valley] of [[1, 0.5 * (-x1 - 7) + bend], [-1, 0.5 * (3 - x1) - bend + 2]]) {
    const clamped = Math.max(Math.abs(valley), KAPPA);
    const a = Math.log(clamped) + 6;
    const p = ((x1 - sign * 7) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20;
    const inverse = Math.abs(valley) > KAPPA ? Math.sign(valley) / clamped : 0;
    losses.push(a * above + p * below);
    gradients.push([
      above * (-0.5 * inverse) + (below * (x1 - sign * 7)) / 5,
      (x2 >= 0 ? slope * a : 0) + above * inverse * sign * (1 - bend * bend) - (x2 <= 0 ? slope * p : 0) + (below * (x2 + 8)) / 50,
    ]);
  }
  return { losses, gradients };
}

/** A walk of one method. factors: on the two losses, before the method sees them. goal: the optimum of their sum. */
export class Walk {
  constructor({ key, start, optimizer, rate, factors, goal }) {
    Object.assign(this, { key, optimizer, rate, factors, goal, at: [...start], steps: 0, arrived: false });
    [this.mean, this.square] = [[0, 0], [0, 0]];
    this.look();
  }

  look() {
    this.arrived = (this.at[0] - this.goal[0]) ** 2 + (this.at[1] - this.goal[1]) ** 2 < NEAR ** 2;
  }

  /** The weighted sum of the losses. */
  get loss() {
    const { losses } = parts(this.at);
    return this.factors[0] * losses[0] + this.factors[1] * losses[1];
  }

  /** One step; none where the walk has arrived. */
  step() {
    if (this.arrived) return;
    const [g, h] = parts(this.at).gradients.map((row, k) => row.map((x) => this.factors[k] * x));
    const both = g[0] * h[0] + g[1] * h[1];
    const G = [[g[0] * g[0] + g[1] * g[1], both], [both, h[0] * h[0] + h[1] * h[1]]];
    const w = this.key === "mgda" ? minNorm(G) : solve(this.key, G, [1, 1]); // losses are negative here: no scaling by them
    this.steps += 1;
    for (const i of [0, 1]) {
      const direction = w[0] * g[i] + w[1] * h[i];
      this.mean[i] += (direction - this.mean[i]) * (1 - BETA);
      this.square[i] += (direction * direction - this.square[i]) * (1 - BETA_SQUARE);
      const spread = Math.sqrt(this.square[i]) / Math.sqrt(1 - BETA_SQUARE ** this.steps) + EPSILON;
      const adam = ((this.rate / (1 - BETA ** this.steps)) * this.mean[i]) / spread;
      this.at[i] -= this.optimizer === "adam" ? adam : this.rate * direction;
    }
    this.look();
  }
}

/** Lines of equal height over a square: a segment [x1, y1, x2, y2] wherever one crosses a cell of the grid. */
export function contours(height, reach, cells, count) {
  const place = (i) => reach * ((2 * i) / cells - 1);
  const z = Array.from({ length: cells + 1 }, (_, j) => Array.from({ length: cells + 1 }, (_, i) => height([place(i), place(j)])));
  const flat = z.flat();
  const [low, high] = [flat.reduce((a, b) => Math.min(a, b)), flat.reduce((a, b) => Math.max(a, b))];
  const levels = Array.from({ length: count }, (_, n) => low + ((high - low) * (n + 0.5)) / count);
  const found = [];
  for (let j = 0; j < cells; j++) {
    for (let i = 0; i < cells; i++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      for (const level of levels) {
        const crossed = [];
        corners.forEach(([x, y], n) => {
          const [X, Y] = corners[(n + 1) % 4];
          const [a, b] = [z[y][x] - level, z[Y][X] - level];
          if (a < 0 !== b < 0) crossed.push([place(x + ((X - x) * a) / (a - b)), place(y + ((Y - y) * a) / (a - b))]);
        });
        for (let n = 0; n + 1 < crossed.length; n += 2) found.push([...crossed[n], ...crossed[n + 1]]);
      }
    }
  }
  return found;
}
