"""Celo2's direction as it is published, in float64 NumPy, feature by feature."""

import numpy as np

DECAYS = (0.9, 0.99, 0.999)
GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)


def indexed_theta():
    """Leaf j of w0__0, ..., w0__13, b0, w1, b1, w2, b2 is 0.3 sin(0.11 j + 0.7 k)."""
    shapes = {f"w0__{i}": (length, 8) for i, length in enumerate(GROUPS)}
    shapes |= {"b0": (8,), "w1": (8, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    arrays = {
        name: 0.3 * np.sin(0.11 * j + 0.7 * np.arange(np.prod(shape))).reshape(shape)
        for j, (name, shape) in enumerate(shapes.items(), 1)
    }
    return {"ff_mod_stack": arrays}


def indexed_param(shape):
    return 0.3 * np.sin(1 + 0.7 * np.arange(np.prod(shape))).reshape(shape)


def indexed_grad(shape, t):
    return 0.05 * np.sin(2 + 0.3 * t + 0.7 * np.arange(np.prod(shape))).reshape(shape)


class Celo2Reference:
    """Directions of one tensor, one call after the other."""

    def __init__(self, theta, *, orthogonalize):
        self.nn, self.orthogonalize = theta["ff_mod_stack"], orthogonalize
        self.m = self.v = self.row = self.col = [0.0] * 3

    def __call__(self, p, g):
        axes = tuple(range(-min(p.ndim, 2), 0))
        g = np.clip(g, -1000, 1000)
        averages = list(zip(DECAYS, self.m, strict=True))
        self.m = [b * m + (1 - b) * g for b, m in averages]
        self.v = [0.95 * self.v[0] + 0.05 * g**2] * 3
        features = self._features(p, g)
        features = [f + 0 * g for f in features]
        features = [
            f / np.sqrt(1e-9 + (f**2).mean(axes, keepdims=True)) for f in features
        ]
        u = self._network(features)
        if self.orthogonalize:
            u = newton_schulz(u)
        return u / np.sqrt(1e-9 + (u**2).mean(axes, keepdims=True))

    def _features(self, p, g):
        rs = 1 / np.sqrt(self.v[0] + 1e-8)
        factors = self._factors(g**2 + 1e-30)
        features = [g, np.clip(g, -0.1, 0.1), p, *self.m, self.v[0]]
        features += [*[m * rs for m in self.m], rs]
        features += [*[g * f for f in factors], g * rs]
        if p.ndim > 1:
            both = [*self.row, *self.col]
            features += [*both, *[1 / np.sqrt(x + 1e-8) for x in both]]
            features += [m * f for m, f in zip(self.m, factors, strict=True)]
        return features

    def _factors(self, squares):
        if squares.ndim < 2:
            averages = zip(DECAYS, self.row, strict=True)
            self.row = [b * r + (1 - b) * squares for b, r in averages]
            return [_inverse_root(r + 1e-9) for r in self.row]
        d1, d0 = np.argsort(squares.shape, kind="stable")[-2:]
        rows, cols = squares.mean(d0, keepdims=True), squares.mean(d1, keepdims=True)
        self.row = [
            b * r + (1 - b) * rows for b, r in zip(DECAYS, self.row, strict=True)
        ]
        self.col = [
            b * c + (1 - b) * cols for b, c in zip(DECAYS, self.col, strict=True)
        ]
        return [
            _inverse_root(r / (r.mean(d1, keepdims=True) + 1e-9)) * _inverse_root(c)
            for r, c in zip(self.row, self.col, strict=True)
        ]

    def _network(self, features):
        first = np.concatenate([self.nn[f"w0__{i}"] for i in range(len(GROUPS))])
        x = np.stack(features, -1) @ first[: len(features)] + self.nn["b0"]
        x = np.maximum(x, 0) @ self.nn["w1"] + self.nn["b1"]
        return (np.maximum(x, 0) @ self.nn["w2"] + self.nn["b2"])[..., 0]


def newton_schulz(x):
    """Five steps; equal to those of the transpose of a tall matrix."""
    if x.shape[-2] > x.shape[-1]:
        return newton_schulz(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    x = x / (np.sqrt((x**2).sum((-1, -2), keepdims=True)) + 1e-8)
    for _ in range(5):
        a = x @ x.swapaxes(-1, -2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def _inverse_root(x):
    return 1 / np.sqrt(np.maximum(x, 1e-9))
