"""VeLO written straight from its equations, in float64 NumPy: slow and plain."""

import numpy as np

TIMES = np.array([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1])
RATES = np.array([0.1, 0.01, 0.001])


def start_loss(num_steps):
    decays = np.exp(-1 / np.logspace(1, np.log10(num_steps), 10))
    return {"decays": decays, "mean": np.zeros(10), "min": np.full(10, 1e12), "i": 0}


def advance_loss(b, loss):
    """The next buffer, and 9 features."""
    decays, i = b["decays"], b["i"] + 1
    if b["i"]:
        loss = min(loss, 2 * abs((b["mean"] / (1 - decays**i)).max()))
    mean = decays * b["mean"] + (1 - decays) * loss
    c = mean / (1 - decays**i)
    least = np.minimum(b["min"], c)
    features = np.zeros(9)
    if i > 2:
        ratio = (c[:-1] - least[:-1]) / np.maximum(1e-8, c[1:] - least[:-1])
        features = np.clip(ratio - 1, -1, 1)
    return {**b, "mean": mean, "min": least, "i": i}, features


def axes(shape):
    return np.argsort(shape, kind="stable")[-2:]


def start(shape):
    row = col = np.zeros(shape)
    if len(shape) >= 2:
        second, largest = axes(shape)
        row, col = (row.sum(axis, keepdims=True) for axis in (largest, second))
    return {"m": [np.zeros(shape)] * 3, "v": np.zeros(shape)} | {
        "row": [row] * 3,
        "col": [col] * 3,
    }


def advance(s, g):
    def average(old, new):
        return [(1 - r) * o + r * new for o, r in zip(old, RATES, strict=True)]

    row = col = g**2 + 1e-30
    if g.ndim >= 2:
        second, largest = axes(g.shape)
        row, col = row.mean(largest, keepdims=True), col.mean(second, keepdims=True)
    return {
        "m": average(s["m"], g),
        "v": 0.999 * s["v"] + 0.001 * g**2,
        "row": average(s["row"], row),
        "col": average(s["col"], col),
    }


def tensor_inputs(p, s):
    def squashed(x):
        return np.clip(np.log(1e-8 + abs(10 * x)), -5, 5) / 2

    k = 1 / np.sqrt(max(1e-9, (p**2).mean()))
    m, v = [k * m for m in s["m"]], k * s["v"]
    rank = [float(sum(n > 1 for n in p.shape) == i) for i in range(5)]
    logs = [m_i.var() for m_i in m] + [((v - m_i.mean()) ** 2).mean() for m_i in m]
    return [squashed(v.mean()), *rank, *map(squashed, logs)]


def dense(x, layer):
    return x @ np.asarray(layer["w"], float) + np.asarray(layer["b"], float)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(theta, inputs, hidden, cell):
    layers = theta["rnn_params"]
    pooled = np.maximum(dense(inputs, layers["linear_1"]), 0).max(0)
    mixed = dense(inputs, layers["linear_2"]) + pooled
    z = dense(np.concatenate([mixed, hidden], 1), layers["rnn"]["linear"])
    i, g, f, o = np.split(z, 4, 1)
    cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def time_inputs(count, num_steps):
    return np.tanh(10 * (count / num_steps - TIMES))


def features(s, g, p):
    """All 30 of every number, on the last axis, over their root mean squares."""

    def full(columns):
        return [np.broadcast_to(x, g.shape) for x in columns]

    root = 1 / np.sqrt(s["v"] + 1e-6)
    if g.ndim < 2:
        by_grad = [1 / np.sqrt(np.maximum(f + 1e-9, 1e-9)) for f in s["row"]]
        by_momentum = [1 / np.sqrt(f) for f in s["row"]]
    else:
        second, _ = axes(g.shape)
        by_grad = by_momentum = [
            1
            / np.sqrt(np.maximum(r / (r.mean(second, keepdims=True) + 1e-9), 1e-9))
            / np.sqrt(np.maximum(c, 1e-9))
            for r, c in zip(s["row"], s["col"], strict=True)
        ]
    columns = [g, np.clip(g, -0.1, 0.1), p, *s["m"], s["v"]]
    columns += [m * root for m in s["m"]] + [root]
    columns += [g * factor for factor in by_grad] + [g * root]
    columns += full(s["row"]) + full(s["col"])
    columns += full(1 / np.sqrt(x + 1e-8) for x in s["row"] + s["col"])
    columns += [m * factor for m, factor in zip(s["m"], by_momentum, strict=True)]
    x = np.stack(columns, -1)
    return x / np.sqrt(1e-5 + (x**2).reshape(-1, 30).mean(0))


def unit_step(stack, s, g, p, exp=1e-3):
    """d exp(l2 h), of one network in the form of a bank's leaves without axis K."""
    stack = {name: np.asarray(leaf, float) for name, leaf in stack.items()}
    w0 = np.concatenate([stack[f"w0__{i}"] for i in range(14)])
    x = np.maximum(features(s, g, p) @ w0 + stack["b0"], 0)
    x = np.maximum(x @ stack["w1"] + stack["b1"], 0)
    x = x @ stack["w2"] + stack["b2"]
    return x[..., 0] * np.exp(exp * x[..., 1])


def size(p):
    return np.sqrt((p**2).mean() + 1e-9)


def run_velo(theta, params, gradients, losses, num_steps, **options):
    """The parameters after every update, and the rows of the LSTM."""
    step, exp, bank = (options.get(k, d) for k, d in OPTIONS.items())
    names = sorted(params)
    params = {k: np.asarray(params[k], float) for k in names}
    state = {k: start(params[k].shape) for k in names}
    loss_state = start_loss(num_steps)
    h, c = (
        np.repeat(np.asarray(theta["lstm_init_state"][k], float), len(names), 0)
        for k in ("hidden", "cell")
    )
    trajectory = []
    for t, (grads, loss) in enumerate(zip(gradients, losses, strict=True)):
        loss_state, seen = advance_loss(loss_state, loss)
        shared = [*time_inputs(t, num_steps), *seen]
        inputs = [[*shared, *tensor_inputs(params[k], state[k])] for k in names]
        h, c = lstm(theta, np.array(inputs), h, c)
        controls = dense(h, theta["rnn_params"]["rnn_to_controls"])
        alphas = dense(h, theta["rnn_params"]["step_size"])[:, 0]
        new = {}
        for k, ctl, alpha in zip(names, controls, alphas, strict=True):
            stack = {
                name: bank * np.tensordot(ctl, np.asarray(leaf, float), 1) / len(ctl)
                for name, leaf in theta["ff_mod_stack"].items()
            }
            g, p = np.clip(np.asarray(grads[k], float), -1000, 1000), params[k]
            state[k] = advance(state[k], g)
            length = alpha * step * (size(p) if options.get("by_size", True) else 1)
            new[k] = p - length * unit_step(stack, state[k], g, p, exp)
        params = new
        trajectory.append(params)
    return trajectory, (h, c)


OPTIONS = {"step": 1e-3, "exp": 1e-3, "bank": 100.0}


def run_schedule(theta, losses, num_steps):
    """The factors of a learned schedule."""
    h, c = (np.asarray(theta["lstm_init_state"][k], float) for k in ("hidden", "cell"))
    state, factors = start_loss(num_steps), []
    for t, loss in enumerate(losses):
        state, seen = advance_loss(state, loss)
        h, c = lstm(theta, np.array([[*time_inputs(t, num_steps), *seen]]), h, c)
        factors.append(0.1 * np.exp(dense(h, theta["rnn_params"]["step_size"])[0, 0]))
    return factors


def run_celo(theta, params, gradients, losses, num_steps):
    """The parameters after every update."""
    stack = {name: leaf[0] for name, leaf in theta["ff_mod_stack"].items()}
    params = {k: np.asarray(p, float) for k, p in params.items()}
    state = {k: start(p.shape) for k, p in params.items()}
    trajectory = []
    factors = run_schedule(theta, losses, num_steps)
    for grads, factor in zip(gradients, factors, strict=True):
        new = {}
        for k, p in params.items():
            g = np.clip(np.asarray(grads[k], float), -1000, 1000)
            state[k] = advance(state[k], g)
            new[k] = p - factor * size(p) * 1e-3 * unit_step(stack, state[k], g, p)
        params = new
        trajectory.append(params)
    return trajectory
