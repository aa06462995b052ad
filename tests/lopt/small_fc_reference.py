"""small_fc written straight from its equations, in float64 NumPy: slow and plain."""

import numpy as np

MOMENTA, SECOND, FACTORED = [0.1, 0.01, 0.001], [0.001], [0.1, 0.01, 0.001]
TAU = np.array([1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5])


def rates(base, offsets, clip=True):
    moved = np.array(base) * np.exp(10 * np.asarray(offsets, float))
    return np.clip(moved, 0, 1) if clip else moved


def axes(shape):
    return np.argsort(shape, kind="stable")[-2:]


def start(shape):
    if len(shape) < 2:
        rows = cols = np.zeros(shape)
    else:
        second, largest = axes(shape)
        rows = np.zeros(shape).sum(largest, keepdims=True)
        cols = np.zeros(shape).sum(second, keepdims=True)
    return {
        "m": [np.zeros(shape)] * 3,
        "v": np.zeros(shape),
        "row": [rows] * 3,
        "col": [cols] * 3,
    }


def advance(s, g, theta):
    def average(old, new, rate):
        return [(1 - r) * o + r * new for o, r in zip(old, rate, strict=True)]

    q = g**2 + 1e-30
    row = col = q
    if g.ndim >= 2:
        second, largest = axes(g.shape)
        row, col = q.mean(largest, keepdims=True), q.mean(second, keepdims=True)
    factored = rates(FACTORED, theta["adafactor_decays"])
    second_rate = rates(SECOND, theta["rms_decays"])
    return {
        "m": average(s["m"], g, rates(MOMENTA, theta["momentum_decays"], clip=False)),
        "v": average([s["v"]], g**2, second_rate)[0],
        "row": average(s["row"], row, factored),
        "col": average(s["col"], col, factored),
    }


def features(s, g, p, count):
    """All 39 of every number, on the last axis."""

    def full(x):
        return [np.broadcast_to(x_i, g.shape) for x_i in x]

    root = 1 / np.sqrt(s["v"] + 1e-6)
    if g.ndim < 2:
        by_grad = [1 / np.sqrt(np.maximum(f + 1e-9, 1e-9)) for f in s["row"]]
        by_momentum = [1 / np.sqrt(f + 1e-6) for f in s["row"]]
    else:
        second, _ = axes(g.shape)
        by_grad = []
        for row, col in zip(s["row"], s["col"], strict=True):
            relative = row / (row.mean(second, keepdims=True) + 1e-9)
            rho = 1 / np.sqrt(np.maximum(relative, 1e-9))
            by_grad.append(rho / np.sqrt(np.maximum(col, 1e-9)))
        by_momentum = by_grad
    columns = [g, p, *s["m"], s["v"], *[m * root for m in s["m"]], root]
    columns += [g * factor for factor in by_grad]
    columns += full(s["row"]) + full(s["col"])
    columns += full(1 / np.sqrt(x + 1e-8) for x in s["row"])
    columns += full(1 / np.sqrt(x + 1e-8) for x in s["col"])
    columns += [m * factor for m, factor in zip(s["m"], by_momentum, strict=True)]
    x = np.stack(columns, -1)
    mean_squares = (x**2).reshape(-1, 28).mean(0)
    time = np.broadcast_to(np.tanh(count / TAU - 1), (*g.shape, 11))
    return np.concatenate([x / np.sqrt(1e-5 + mean_squares), time], -1)


def network(nn, x):
    for i in range(3):
        x = np.maximum(x, 0) if i else x
        x = x @ np.asarray(nn[f"w{i}"], float) + np.asarray(nn[f"b{i}"], float)
    return x[..., 0], x[..., 1]


def update(theta, s, g, p, count, step=0.01, exp=1e-3, multiplier=1.0):
    """The step of one leaf, and its new state."""
    g, p = np.asarray(g, float), np.asarray(p, float)
    s = advance(s, g, theta)
    d, h = network(theta["nn"], features(s, g, p, count))
    return -step / multiplier * d * np.exp(exp * h), s
