r"""The parameterized optimizer O_q of MADA: one step and its partial derivatives.

Everything here acts on the arrays of one leaf. With d the change of the gradient g
since the last step and a prime for "before this step",

.. math::

    \hat g &= g + b_3 d, \qquad s = \operatorname{sign}(\hat g^2 - v'), \\
    \tilde g^2 &= c\,\hat g^2 + (1-c)(v' + s\,\hat g^2), \\
    m &= b_1 m' + (1-b_1) g, \quad v = b_2 v' + (1-b_2) \tilde g^2, \quad
    n = b_3 n' + (1-b_3) d, \\
    \bar v &= \bar v' + (v - \bar v')/t, \qquad
    r = \sqrt{(\rho v + (1-\rho)\bar v)/(1-b_2^t)}, \\
    \text{direction} &= \gamma\,\frac{m/(1-b_1^t) + b_3 n}{r + \epsilon}
      + (1-\gamma) \operatorname{sign}(l_1 m_l' + (1-l_1) g), \quad
    m_l = l_2 m_l' + (1-l_2) g.

Source: Ozkara et al., "MADA: Meta-Adaptive Optimizers through hyper-gradient Descent",
ICML 2024, https://arxiv.org/abs/2401.08893. The Lion branch takes Lion's own order
(direction from the old momentum).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

COEFFICIENTS = ("b1", "b2", "b3", "c", "rho", "gamma")

# A coefficient that is fixed at its neutral value costs neither buffer nor arithmetic.
NEUTRAL = {"b3": 0.0, "c": 1.0, "rho": 1.0, "gamma": 1.0}


class MadaHyperparams(NamedTuple):
    """The coefficients q of the family, float scalars.

    Attributes:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      b3: decay and weight of the gradient differences (Adan), in [0, 1).
      c: Adam's second moment (1) against Yogi's (0).
      rho: second moment (1) against its mean over time, AVGrad (0).
      gamma: adaptive direction (1) against Lion's sign (0).
      learning_rate: present only where it is learned.
    """

    b1: jax.Array
    b2: jax.Array
    b3: jax.Array
    c: jax.Array
    rho: jax.Array
    gamma: jax.Array
    learning_rate: jax.Array | None = None


class Moments(NamedTuple):
    """What one leaf remembers of the steps so far; `None` where nothing needs it.

    Attributes:
      mu: first moment m.
      nu: second moment v.
      nu_mean: mean of v over time.
      diff: moving average n of the gradient differences.
      lion: Lion's momentum.
      grad: the gradient of the last step.
    """

    mu: jax.Array | None
    nu: jax.Array | None
    nu_mean: jax.Array | None
    diff: jax.Array | None
    lion: jax.Array | None
    grad: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Form:
    """Which branches of the family a transformation computes, and how.

    Attributes:
      active: coefficients that may differ from their neutral value.
      lion_only: gamma is fixed at 0, so that the adaptive branch is left out.
      mean_only: rho is fixed at 0, so that v enters only through its mean.
      eps: added to the root, outside of it.
      lion_betas: (l1, l2).
      bias_correction: divide m by 1 - b1^t and v by 1 - b2^t.
      debias_n: divide n by 1 - b3^t.
      detach_average: the mean over time is a constant of differentiation.
      prev_grad: "true", or "zero" to take the whole gradient as its own change.
    """

    active: frozenset[str]
    lion_only: bool
    mean_only: bool
    eps: jax.typing.ArrayLike
    lion_betas: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]
    bias_correction: bool
    debias_n: bool
    detach_average: bool
    prev_grad: str

    @property
    def keeps(self) -> Moments:
        """The buffers that a step needs, as booleans."""
        adaptive = not self.lion_only
        diff = adaptive and "b3" in self.active
        return Moments(
            mu=adaptive,
            nu=adaptive,
            nu_mean=adaptive and "rho" in self.active,
            diff=diff,
            lion="gamma" in self.active,
            grad=diff and self.prev_grad == "true",
        )


class Scalars(NamedTuple):
    """The numbers of one step, in the dtype of a leaf."""

    q: MadaHyperparams
    count: jax.Array
    c1: jax.Array
    c2: jax.Array
    c3: jax.Array


@jax.custom_jvp
def one_minus_power(b: jax.Array, t: jax.Array) -> jax.Array:
    """1 - b^t without cancellation, and with a finite derivative at b = 0."""
    return -jnp.expm1(t * jnp.log(b))


@one_minus_power.defjvp
def _power_jvp(primals, tangents):
    b, t = primals
    return one_minus_power(b, t), -t * b ** (t - 1) * tangents[0]


def scalars(q: MadaHyperparams, t: jax.Array, form: Form, dtype) -> Scalars:
    """Casts q to a leaf's dtype and adds the bias corrections of step t >= 1."""
    q = jax.tree.map(lambda x: jnp.asarray(x, dtype), q)
    t = t.astype(dtype)
    one = jnp.ones((), dtype)
    corrected = form.bias_correction
    return Scalars(
        q=q,
        count=t,
        c1=one_minus_power(q.b1, t) if corrected else one,
        c2=one_minus_power(q.b2, t) if corrected else one,
        c3=one_minus_power(q.b3, t) if form.debias_n else one,
    )


class Gradient(NamedTuple):
    """The gradient of a step and what the second moment makes of it."""

    change: jax.Array | None
    ahead: jax.Array
    square: jax.Array
    weight: jax.Array | float


def _gradient(old: Moments, grad: jax.Array, q: MadaHyperparams, form: Form):
    change, ahead, weight = None, grad, 1.0
    if "b3" in form.active:
        change = grad if old.grad is None else grad - old.grad
        ahead = grad + q.b3 * change
    square = ahead * ahead
    if "c" in form.active:
        weight = q.c + (1 - q.c) * jnp.sign(square - old.nu)
    return Gradient(change, ahead, square, weight)


def advance(old: Moments, grad: jax.Array, s: Scalars, form: Form) -> Moments:
    """The moments after a step with gradient `grad`."""
    q, keeps = s.q, form.keeps
    _, l2 = form.lion_betas
    mu = nu = nu_mean = diff = lion = None
    if keeps.lion:
        lion = l2 * old.lion + (1 - l2) * grad
    if keeps.mu:
        g = _gradient(old, grad, q, form)
        square = g.weight * g.square
        if "c" in form.active:
            square = square + (1 - q.c) * old.nu
        mu = q.b1 * old.mu + (1 - q.b1) * grad
        nu = q.b2 * old.nu + (1 - q.b2) * square
        if keeps.nu_mean:
            nu_mean = old.nu_mean + (nu - old.nu_mean) / s.count
        if keeps.diff:
            diff = q.b3 * old.diff + (1 - q.b3) * g.change
    return Moments(mu, nu, nu_mean, diff, lion, grad if keeps.grad else None)


def _second_moment(new: Moments, q: MadaHyperparams, form: Form) -> jax.Array:
    if new.nu_mean is None:
        return new.nu
    mean = jax.lax.stop_gradient(new.nu_mean) if form.detach_average else new.nu_mean
    return mean if form.mean_only else q.rho * new.nu + (1 - q.rho) * mean


def root(x: jax.Array) -> jax.Array:
    """Square root whose derivative at 0 is 0 instead of infinite."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def _numerator(new: Moments, s: Scalars) -> jax.Array:
    return (
        new.mu / s.c1
        if new.diff is None
        else (new.mu / s.c1 + s.q.b3 * new.diff / s.c3)
    )


def _lion_sign(old: Moments, grad: jax.Array, form: Form) -> jax.Array:
    l1, _ = form.lion_betas
    return jnp.sign(l1 * old.lion + (1 - l1) * grad)


def direction(
    old: Moments, new: Moments, grad: jax.Array, s: Scalars, form: Form
) -> jax.Array:
    """What the step moves against: x_t = x_{t-1} - learning_rate * direction."""
    if form.lion_only:
        return _lion_sign(old, grad, form)
    r = root(_second_moment(new, s.q, form) / s.c2)
    adaptive = _numerator(new, s) / (r + form.eps)
    if "gamma" not in form.active:
        return adaptive
    return s.q.gamma * adaptive + (1 - s.q.gamma) * _lion_sign(old, grad, form)


def partials(
    old: Moments,
    grad: jax.Array,
    cotangent: jax.Array,
    s: Scalars,
    form: Form,
    learn: tuple[str, ...],
) -> dict[str, jax.Array]:
    """Cotangent * d(-direction)/dq_i for each learned coefficient, element by element.

    `old` and `grad` are the moments before the step and its gradient; they, the signs
    and (with `detach_average`) the mean over time are constants of differentiation.
    """
    q, t = s.q, s.count
    new = advance(old, grad, s, form)
    out = {}
    sign = _lion_sign(old, grad, form) if "gamma" in form.active else None
    if form.lion_only:
        return {name: -cotangent * sign for name in learn}

    second = _second_moment(new, q, form)
    r = root(second / s.c2)
    denominator = r + form.eps
    numerator = _numerator(new, s)
    weighted = cotangent / denominator
    if "gamma" in learn:
        out["gamma"] = cotangent * sign - weighted * numerator
    if "learning_rate" in learn:
        step = weighted * numerator
        if sign is not None:
            step = q.gamma * step + (1 - q.gamma) * cotangent * sign
        out["learning_rate"] = -step

    weighted = q.gamma * weighted
    # dx/dv without its 1/C2; written so that no r * D^2 can underflow.
    flat = r == 0
    slope = weighted * (numerator / denominator) / jnp.where(flat, 2, 2 * r)
    slope = jnp.where(flat, 0, slope) / s.c2
    g = _gradient(old, grad, q, form)
    share = 0.0 if form.mean_only else 1.0
    if new.nu_mean is not None and not form.mean_only:
        share = q.rho
    if new.nu_mean is not None and not form.detach_average:
        share = share + (1 - share) / t

    if "b1" in learn:
        bracket = (old.mu - grad) / s.c1
        if form.bias_correction:
            bracket += new.mu * (t * q.b1 ** (t - 1) / s.c1**2)
        out["b1"] = -weighted * bracket
    if "b2" in learn:
        square = g.weight * g.square
        kept = old.nu if "c" not in form.active else q.c * old.nu
        bracket = share * (kept - square)
        if form.bias_correction:
            bracket += second * (t * q.b2 ** (t - 1) / s.c2)
        out["b2"] = slope * bracket
    if "b3" in learn:
        bracket = (new.diff + q.b3 * (old.diff - g.change)) / s.c3
        if form.debias_n:
            bracket += new.diff * (t * q.b3**t / s.c3**2)
        out["b3"] = -weighted * bracket + slope * (
            share * (1 - q.b2) * 2 * g.weight * g.ahead * g.change
        )
    if "c" in learn:
        sign_square = jnp.sign(g.square - old.nu)
        out["c"] = (
            slope * (share * (1 - q.b2)) * ((1 - sign_square) * g.square - old.nu)
        )
    if "rho" in learn:
        out["rho"] = slope * (new.nu - new.nu_mean)
    return out
