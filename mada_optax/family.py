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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mada_optax import blocks

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
    """Averages over the steps so far; `None` where nothing needs them.

    The fields are arrays of one leaf, or trees of them in a state.

    Attributes:
      mu: first moment m.
      nu: second moment v.
      nu_mean: mean of v over time.
      diff: moving average n of the gradient changes.
      lion: Lion's momentum.
    """

    mu: Any
    nu: Any
    nu_mean: Any
    diff: Any
    lion: Any


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
      detach_average: the mean over time is a constant: True everywhere, `None` in
        `partials` alone, False nowhere.
    """

    active: frozenset[str]
    lion_only: bool
    mean_only: bool
    eps: jax.typing.ArrayLike
    lion_betas: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]
    bias_correction: bool
    debias_n: bool
    detach_average: bool | None

    @property
    def keeps(self) -> Moments:
        """The averages that a step needs, as booleans."""
        adaptive = not self.lion_only
        return Moments(
            mu=adaptive,
            nu=adaptive,
            nu_mean=adaptive and "rho" in self.active,
            diff=self.uses_change,
            lion="gamma" in self.active,
        )

    @property
    def uses_change(self) -> bool:
        """Whether a step needs the change of the gradient."""
        return not self.lion_only and "b3" in self.active


@jax.custom_jvp
def one_minus_power(b: jax.Array, t: jax.Array) -> jax.Array:
    """1 - b^t without cancellation, and with a finite derivative at b = 0."""
    return -jnp.expm1(t * jnp.log(b))


@one_minus_power.defjvp
def _one_minus_power_jvp(primals, tangents):
    b, t = primals
    return one_minus_power(b, t), -t * b ** (t - 1) * tangents[0]


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """Square root whose derivative at 0 is 0 instead of infinite."""
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals, tangents):
    y = root(*primals)
    zero = y == 0
    return y, jnp.where(zero, 0, tangents[0] / jnp.where(zero, 1, 2 * y))


class Scalars(NamedTuple):
    """The numbers of step t, in the dtype of a leaf.

    Attributes:
      q: coefficients.
      rate: learning rate.
      t: the step, 1 for the first.
      over_t: 1 / t.
      over_c1: 1 / (1 - b1^t), or 1 without bias correction.
      over_c2: 1 / (1 - b2^t), or 1 without bias correction.
      over_c3: 1 / (1 - b3^t), or 1 if n is not corrected.
      eps: added to the root.
      l1: Lion's b1.
      l2: Lion's b2.
    """

    q: MadaHyperparams
    rate: jax.Array
    t: jax.Array
    over_t: jax.Array
    over_c1: jax.Array
    over_c2: jax.Array
    over_c3: jax.Array
    eps: jax.Array
    l1: jax.Array
    l2: jax.Array


def scalars(q: jax.Array, t: jax.typing.ArrayLike, form: Form, dtype: Any) -> Scalars:
    """The numbers of step t >= 1 with the fields of `MadaHyperparams` in q, (7,)."""
    *coefficients, rate = q.astype(dtype)
    coefficients = MadaHyperparams(*coefficients)
    t = jnp.asarray(t, dtype)

    def over(b, corrected):
        return 1 / one_minus_power(b, t) if corrected else jnp.ones((), dtype)

    numbers = Scalars(
        q=coefficients,
        rate=rate,
        t=t,
        over_t=1 / t,
        over_c1=over(coefficients.b1, form.bias_correction),
        over_c2=over(coefficients.b2, form.bias_correction),
        over_c3=over(coefficients.b3, form.debias_n),
        eps=jnp.asarray(form.eps, dtype),
        l1=jnp.asarray(form.lion_betas[0], dtype),
        l2=jnp.asarray(form.lion_betas[1], dtype),
    )
    # Otherwise they may be computed again for every element that they meet.
    return jax.lax.optimization_barrier(numbers)


def hold(s: Scalars, held: jax.Array) -> Scalars:
    """The numbers of a step, which leaves the moments alone where `held` is true."""
    ones = jax.tree.map(jnp.ones_like, s.q)
    zero, one = jnp.zeros_like(s.t), jnp.ones_like(s.t)
    kept = s._replace(q=ones, l2=one, over_t=zero)
    return jax.tree.map(lambda x, y: jnp.where(held, x, y), kept, s)


def _ahead(grad: jax.Array, change: Any, s: Scalars, form: Form) -> jax.Array:
    return grad + s.q.b3 * change if form.uses_change else grad


def _second_moment(old: Moments, ahead: jax.Array, s: Scalars, form: Form) -> jax.Array:
    q, square = s.q, ahead * ahead
    if "c" in form.active:
        sign = jnp.sign(square - old.nu)
        square = (q.c + (1 - q.c) * sign) * square + (1 - q.c) * old.nu
    return q.b2 * old.nu + (1 - q.b2) * square


def advance(
    old: Moments, grad: jax.Array, change: Any, s: Scalars, form: Form
) -> Moments:
    """The moments after a step with gradient `grad`, which changed by `change`."""
    q, keeps = s.q, form.keeps
    mu = nu = nu_mean = diff = lion = None
    if keeps.mu:
        mu = q.b1 * old.mu + (1 - q.b1) * grad
        nu = _second_moment(old, _ahead(grad, change, s, form), s, form)
    if keeps.nu_mean:
        nu = blocks.write_out(nu)
        nu_mean = old.nu_mean + (nu - old.nu_mean) * s.over_t
    if keeps.diff:
        diff = q.b3 * old.diff + (1 - q.b3) * change
    if keeps.lion:
        lion = s.l2 * old.lion + (1 - s.l2) * grad
    return Moments(mu, nu, nu_mean, diff, lion)


def _scaled_root(new: Moments, s: Scalars, form: Form) -> tuple[jax.Array, jax.Array]:
    """V, the second moment of the step, and sqrt(V / C2)."""
    second = new.nu
    if new.nu_mean is not None:
        mean = new.nu_mean
        mean = jax.lax.stop_gradient(mean) if form.detach_average else mean
        second = mean if form.mean_only else s.q.rho * second + (1 - s.q.rho) * mean
    return second, root(second * s.over_c2)


def _numerator(new: Moments, s: Scalars) -> jax.Array:
    numerator = new.mu * s.over_c1
    if new.diff is not None:
        numerator += s.q.b3 * s.over_c3 * new.diff
    return numerator


def _lion_sign(old: Moments, grad: jax.Array, s: Scalars) -> jax.Array:
    return jnp.sign(s.l1 * old.lion + (1 - s.l1) * grad)


def direction(
    old: Moments, new: Moments, grad: jax.Array, s: Scalars, form: Form
) -> jax.Array:
    """What the step moves against: x_t = x_{t-1} - learning_rate * direction."""
    if form.lion_only:
        return _lion_sign(old, grad, s)
    _, r = _scaled_root(new, s, form)
    adaptive = _numerator(new, s) / (r + s.eps)
    if "gamma" not in form.active:
        return adaptive
    return s.q.gamma * adaptive + (1 - s.q.gamma) * _lion_sign(old, grad, s)


def partials(
    old: Moments,
    grad: jax.Array,
    change: Any,
    cotangent: jax.Array,
    s: Scalars,
    form: Form,
    learn: tuple[str, ...],
) -> dict[str, jax.Array]:
    """Cotangent * d(-direction)/dq_i for what is learned, element by element.

    `old`, `grad` and `change` are the moments before the step, its gradient and how
    that changed; they, the signs and (unless `detach_average=False`) the mean over
    time are constants of differentiation. What has no effect on the step is left out.
    """
    q, t, out = s.q, s.t, {}
    if form.lion_only:
        if "learning_rate" in learn:
            out["learning_rate"] = -cotangent * _lion_sign(old, grad, s)
        return out

    new = advance(old, grad, change, s, form)
    second, r = _scaled_root(new, s, form)
    numerator = _numerator(new, s)
    weighted = cotangent / (r + s.eps)
    if "gamma" in learn:
        out["gamma"] = cotangent * _lion_sign(old, grad, s) - weighted * numerator
    if "learning_rate" in learn:
        out["learning_rate"] = -cotangent * direction(old, new, grad, s, form)

    # gamma * cotangent * dx/d(V / C2): no r * D^2, which underflows, and 0 at r = 0.
    flat = r == 0
    slope = weighted * numerator / jnp.where(flat, 1, (r + s.eps) * r)
    slope = jnp.where(flat, 0, 0.5 * q.gamma * s.over_c2 * slope)
    share = 0.0 if form.mean_only else 1.0 if new.nu_mean is None else q.rho
    if new.nu_mean is not None and form.detach_average is False:
        share = share + (1 - share) * s.over_t

    if "b1" in learn:
        bracket = s.over_c1 * (old.mu - grad)
        if form.bias_correction:
            bracket += (t * q.b1 ** (t - 1) * s.over_c1**2) * new.mu
        out["b1"] = -q.gamma * weighted * bracket
    if "rho" in learn:
        out["rho"] = slope * (new.nu - new.nu_mean)

    ahead = _ahead(grad, change, s, form)
    square = ahead * ahead
    weight = 1.0
    if "c" in form.active:
        sign = jnp.sign(square - old.nu)
        weight = q.c + (1 - q.c) * sign
        if "c" in learn:
            bracket = (1 - sign) * square - old.nu
            out["c"] = share * (1 - q.b2) * slope * bracket
    if "b2" in learn:
        bracket = share * (q.c * old.nu - weight * square)
        if form.bias_correction:
            bracket += (t * q.b2 ** (t - 1) * s.over_c2) * second
        out["b2"] = slope * bracket
    if "b3" in learn:
        bracket = s.over_c3 * (new.diff + q.b3 * (old.diff - change))
        if form.debias_n:
            bracket += (t * q.b3**t * s.over_c3**2) * new.diff
        out["b3"] = -q.gamma * weighted * bracket + slope * (
            share * (1 - q.b2) * 2 * weight * ahead * change
        )
    return out
