"""MADA in plain numpy, in the order of the paper's equations and with nothing saved.

All partial derivatives of a step are formed at once and kept until the next gradient
(six more floats per parameter than needed), which leaves no room for the bookkeeping
that the package has to do.
"""

import dataclasses

import numpy as np

NAMES = ("b1", "b2", "b3", "c", "rho", "gamma", "learning_rate")
BOX = {
    "b1": (0.01, 0.99),
    "b2": (0.501, 0.99),
    "b3": (0.0, 0.99),
    "c": (0.0, 1.0),
    "rho": (0.0, 1.0),
    "gamma": (0.0, 1.0),
    "learning_rate": (-np.inf, np.inf),
}


@dataclasses.dataclass
class Mada:
    """One run; the fields are the arguments of `mada`, dicts by name where learned."""

    learning_rate: object
    b1: float = 0.9
    b2: float = 0.95
    b3: float = 0.0
    c: float = 1.0
    rho: float = 1.0
    gamma: float = 1.0
    eps: float = 1e-8
    weight_decay: float = 0.0
    decayed: object = 1.0
    hyper_learning_rate: dict = dataclasses.field(default_factory=dict)
    hyper_momentum: dict = dataclasses.field(default_factory=dict)
    learn: tuple = NAMES[:6]
    bounds: dict = dataclasses.field(default_factory=dict)
    hyper_clip: float | None = 10.0
    hyper_warmup: int = 0
    hyper_grad_scale: float = 1.0
    clip_norm: float | None = None
    lion_betas: tuple = (0.95, 0.98)
    nu_init: float = 1e-15
    n_init: str = "zeros"
    prev_grad: str = "true"
    prev_grad_init: str = "first"
    bias_correction: bool = True
    debias_n: bool = False
    detach_average: bool = True
    update_order: str = "q_first"
    reparam: str | None = None

    def run(self, x, gradient, steps):
        """Parameters after, coefficients used in, raw h available at each update."""
        size = len(x)
        self.m = self.vt = self.n = self.ml = self.g = np.zeros(size)
        self.vb = np.full(size, self.nu_init)
        rate = self.learning_rate
        stored = {name: getattr(self, name) for name in NAMES[:6]}
        stored["learning_rate"] = float(rate(0)) if callable(rate) else rate
        buffer = dict.fromkeys(NAMES, 0.0)
        partials = {name: np.zeros(size) for name in NAMES}
        xs, qs, hs = [], [], []
        for t in range(1, steps + 1):
            if callable(rate):
                stored["learning_rate"] = float(rate(t - 1))
            raw = gradient(x, t - 1)
            h = {name: raw @ partials[name] for name in NAMES}
            moved = self.hyper_update(stored, buffer, h, t)
            q = moved if self.update_order == "q_first" else stored
            stored = moved
            g = raw
            if self.clip_norm is not None:
                g = raw * min(1, self.clip_norm / (np.sqrt(raw @ raw) + 1e-6))
            decay = q["learning_rate"] * self.weight_decay * self.decayed
            direction, partials = self.step(q, g, t)
            x = (1 - decay) * x - q["learning_rate"] * direction
            xs.append(x)
            qs.append([q[name] for name in NAMES])
            hs.append([h[name] * (name in self.learn) for name in NAMES])
        return np.array(xs), np.array(qs), np.array(hs)

    def hyper_update(self, q, buffer, h, t):
        moved = dict(q)
        if t <= self.hyper_warmup:
            return moved
        for name in self.learn:
            step = h[name] * self.hyper_grad_scale
            tanh = self.reparam == "tanh" and name != "learning_rate"
            if tanh:
                z = np.arctanh(2 * q[name] - 1)
                step = step * (1 - np.tanh(z) ** 2) / 2
            if self.hyper_clip is not None:
                step = step * min(1, self.hyper_clip / (abs(step) + 1e-6))
            buffer[name] = self.hyper_momentum.get(name, 0.0) * buffer[name] + step
            change = self.hyper_learning_rate[name] * buffer[name]
            new = (np.tanh(z - change) + 1) / 2 if tanh else q[name] - change
            moved[name] = np.clip(new, *{**BOX, **self.bounds}[name])
        return moved

    def step(self, q, g, t):
        """Direction of update t, and dx/dq for all coefficients."""
        b1, b2, b3, c, rho, gam, a = (q[name] for name in NAMES)
        m0, vb0, vt0, n0, ml0, g0 = self.m, self.vb, self.vt, self.n, self.ml, self.g
        if t == 1:
            g0 = g if self.prev_grad_init == "first" else 0 * g
            n0 = g * g if self.n_init == "grad_sq" else 0 * g
        if self.prev_grad == "zero":
            g0 = 0 * g
        l1, l2 = self.lion_betas

        d = g - g0
        gh = g + b3 * d
        s = np.sign(gh**2 - vb0)
        gt2 = c * gh**2 + (1 - c) * (vb0 + s * gh**2)
        m = b1 * m0 + (1 - b1) * g
        vb = b2 * vb0 + (1 - b2) * gt2
        n = b3 * n0 + (1 - b3) * d
        u = np.sign(l1 * ml0 + (1 - l1) * g)
        ml = l2 * ml0 + (1 - l2) * g
        vt = (vb + (t - 1) * vt0) / t
        corrected = self.bias_correction
        c1, c2 = (1 - b1**t, 1 - b2**t) if corrected else (1.0, 1.0)
        c3 = 1 - b3**t if self.debias_n else 1.0
        v = rho * vb + (1 - rho) * vt
        r = np.sqrt(v / c2)
        big_d = r + self.eps
        num = m / c1 + b3 * n / c3
        direction = gam * num / big_d + (1 - gam) * u

        share = rho if self.detach_average else rho + (1 - rho) / t
        k = a * gam * num / (2 * r * big_d**2)
        dc1 = t * b1 ** (t - 1) / c1**2 if corrected else 0.0
        dc2 = t * b2 ** (t - 1) / c2**2 if corrected else 0.0
        dc3 = n * t * b3**t / c3**2 if self.debias_n else 0.0
        partials = {
            "b1": -a * gam / big_d * ((m0 - g) / c1 + m * dc1),
            "b2": k * (share * (vb0 - gt2) / c2 + v * dc2),
            "b3": -a * gam / big_d * ((n + b3 * (n0 - d)) / c3 + dc3)
            + k * share * (1 - b2) / c2 * 2 * gh * d * (c + (1 - c) * s),
            "c": k * share * (1 - b2) / c2 * ((1 - s) * gh**2 - vb0),
            "rho": k * (vb - vt) / c2,
            "gamma": -a * (num / big_d - u),
            "learning_rate": -direction,
        }
        self.m, self.vb, self.vt, self.n, self.ml, self.g = m, vb, vt, n, ml, g
        return direction, partials
