"""The members of the family as fixed optimizers.

Adam, AVGrad, Adan and Yogi are points of O_q. Lion and AMSGrad stand alone, with their
own coefficients in `state.hyperparams`. Weight decay is decoupled and multiplied by the
learning rate; moments are float32 or wider.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import ScalarOrSchedule

from mada_optax import domains, family
from mada_optax.leaves import (
    increment,
    reject_complex,
    vary_like,
    wide_dtype,
    widest_dtype,
)
from mada_optax.settings import Mask, Settings
from mada_optax.transform import transformation


def _point(learning_rate, **settings) -> optax.GradientTransformationExtraArgs:
    domains.check_learning_rate(learning_rate)
    return transformation(learning_rate, Settings(learn=(), **settings))


def adam(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam, and AdamW with `weight_decay`: the point b3 = 0, c = rho = gamma = 1.

    .. math::

        x_t = x_{t-1} - a_t \Big(\frac{m_t / (1-b_1^t)}{\sqrt{v_t / (1-b_2^t)}
          + \epsilon} + \lambda x_{t-1}\Big)

    Args:
      learning_rate: a number or an Optax schedule.
      b1: first-moment decay, in [0, 1).
      b2: second-moment decay, in [0, 1).
      eps: added outside of the square root.
      weight_decay: decoupled, multiplied by the learning rate.
      mask: a tree of booleans, a prefix of the parameters, or a function that makes
        one: what to decay.

    Returns:
      A gradient transformation with state `MadaState`, 2 floats per parameter.

    Raises:
      ValueError: for a value outside its domain or complex parameters.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.adam(1e-3, weight_decay=0.1)

    References:
      Kingma and Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014.
    """
    return _point(
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        nu_init=0.0,
        weight_decay=weight_decay,
        mask=mask,
    )


def avgrad(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
    bias_correction: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""AVGrad: AMSGrad's maximum replaced by a mean over time; the point rho = 0.

    .. math::

        \bar v_t = \frac1t \sum_{s \le t} v_s, \qquad
        x_t = x_{t-1} - a_t \frac{m_t / (1-b_1^t)}{\sqrt{\bar v_t / (1-b_2^t)}
          + \epsilon}

    Its effective learning rate never grows where a_t falls like 1/sqrt(t). Early
    steps are up to about 1.3 times Adam's, because the mean of the v_s, which start
    low, is corrected as if it were one of them.

    Args:
      learning_rate: a number or an Optax schedule.
      b1: first-moment decay, in [0, 1).
      b2: second-moment decay, in [0, 1).
      eps: added outside of the square root.
      weight_decay: decoupled, multiplied by the learning rate.
      mask: what to decay, as in `adam`.
      bias_correction: whether moments are bias-corrected.

    Returns:
      A gradient transformation with state `MadaState`, 3 floats per parameter.

    Raises:
      ValueError: for a value outside its domain or complex parameters.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.avgrad(1e-3)

    References:
      Ozkara et al., `MADA <https://arxiv.org/abs/2401.08893>`_, ICML 2024.
    """
    return _point(
        learning_rate,
        b1=b1,
        b2=b2,
        rho=0.0,
        eps=eps,
        nu_init=0.0,
        weight_decay=weight_decay,
        mask=mask,
        bias_correction=bias_correction,
    )


def adan(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.98,
    b2: jax.typing.ArrayLike = 0.92,
    b3: jax.typing.ArrayLike = 0.99,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adan: Adam with a moving average of gradient differences.

    .. math::

        w_t &= b_2 w_{t-1} + (1-b_2)(g_t - g_{t-1}), \qquad
        z_t = b_3 z_{t-1} + (1-b_3)(g_t + b_2 (g_t - g_{t-1}))^2, \\
        x_t &= x_{t-1} - a_t \frac{m_t / (1-b_1^t) + b_2 w_t / (1-b_2^t)}
          {\sqrt{z_t / (1-b_3^t)} + \epsilon}

    The betas are decays, as in the family, whose b3 is Adan's b2 and whose b2 is
    Adan's b3: so they are named in `state.hyperparams`. `optax.adan` of Optax 0.2.8
    weights the differences by 1 - b2 and is a different optimizer.

    Args:
      learning_rate: a number or an Optax schedule.
      b1: first-moment decay, in [0, 1).
      b2: decay and weight of the gradient differences, in [0, 1).
      b3: second-moment decay, in [0, 1).
      eps: added outside of the square root.
      weight_decay: decoupled, multiplied by the learning rate.
      mask: what to decay, as in `adam`.

    Returns:
      A gradient transformation with state `MadaState`, 4 floats per parameter.

    Raises:
      ValueError: for a value outside its domain or complex parameters.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.adan(1e-3)

    References:
      Xie et al., `Adan <https://arxiv.org/abs/2208.06677>`_, 2022.
    """
    domains.check_coefficient("b2", b2)
    domains.check_coefficient("b3", b3)
    return _point(
        learning_rate,
        b1=b1,
        b2=b3,
        b3=b2,
        eps=eps,
        nu_init=0.0,
        debias_n=True,
        weight_decay=weight_decay,
        mask=mask,
    )


def yogi(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-3,
    *,
    nu_init: jax.typing.ArrayLike = 1e-6,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Yogi: second moments that move by at most (1 - b2) g^2; the point c = 0.

    .. math::

        v_t = v_{t-1} + (1-b_2)\, g_t^2 \operatorname{sign}(g_t^2 - v_{t-1}), \qquad
        x_t = x_{t-1} - a_t \frac{m_t / (1-b_1^t)}{\sqrt{v_t / (1-b_2^t)} + \epsilon}

    Args:
      learning_rate: a number or an Optax schedule.
      b1: first-moment decay, in [0, 1).
      b2: second-moment decay, in [0, 1).
      eps: added outside of the square root.
      nu_init: second moments before the first update.
      weight_decay: decoupled, multiplied by the learning rate.
      mask: what to decay, as in `adam`.

    Returns:
      A gradient transformation with state `MadaState`, 2 floats per parameter.

    Raises:
      ValueError: for a value outside its domain or complex parameters.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.yogi(1e-2)

    References:
      Zaheer et al., `Adaptive Methods for Nonconvex Optimization
      <https://papers.nips.cc/paper/8186>`_, 2018.
    """
    return _point(
        learning_rate,
        b1=b1,
        b2=b2,
        c=0.0,
        eps=eps,
        nu_init=nu_init,
        weight_decay=weight_decay,
        mask=mask,
    )


class Betas(NamedTuple):
    """The coefficients of Lion and of AMSGrad, float scalars in [0, 1)."""

    b1: jax.typing.ArrayLike
    b2: jax.typing.ArrayLike


class MemberState(NamedTuple):
    """State of Lion and of AMSGrad.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: the two decays.
      moments: trees like the parameters, float32 or wider.
    """

    count: jax.Array
    hyperparams: Betas
    moments: tuple[optax.Updates, ...]


def _stand_alone(
    learning_rate: ScalarOrSchedule,
    betas: Betas,
    buffers: int,
    rule: Callable[..., tuple[jax.Array, ...]],
    weight_decay: Any,
    mask: Mask | None,
) -> optax.GradientTransformationExtraArgs:
    """`rule(moments, grad, betas, t)` on leaves gives a direction and new moments."""
    domains.check_learning_rate(learning_rate)
    for name, value in betas._asdict().items():
        domains.check_numeric(name, value)
        domains.check_decay(name, value)
    weight_decay = domains.weight_decay_or_none(weight_decay)

    def init(params):
        reject_complex(params)
        zeros = [
            jax.tree.map(lambda p: jnp.zeros_like(p, dtype=wide_dtype(p)), params)
            for _ in range(buffers)
        ]
        dtype = widest_dtype(params)
        return MemberState(
            count=jnp.zeros((), jnp.int32),
            hyperparams=vary_like(
                Betas(*[jnp.asarray(b, dtype) for b in betas]), params
            ),
            moments=tuple(zeros),
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args):
        del extra_args
        if params is None and weight_decay is not None:
            raise ValueError(domains.NO_PARAMS)
        reject_complex(updates)
        count = increment(state.count)
        rate = learning_rate
        rate = rate(state.count) if callable(rate) else rate

        def leaf(grad, *moments):
            dtype = moments[0].dtype
            q = jax.tree.map(lambda b: b.astype(dtype), state.hyperparams)
            return rule(moments, jnp.asarray(grad, dtype), q, jnp.asarray(count, dtype))

        grads, treedef = jax.tree.flatten(updates)
        columns = map(treedef.flatten_up_to, state.moments)
        results = [leaf(*row) for row in zip(grads, *columns, strict=True)]
        direction, *moments = [
            treedef.unflatten([result[i] for result in results])
            for i in range(buffers + 1)
        ]
        if weight_decay is not None:
            decay = optax.add_decayed_weights(weight_decay, mask)
            direction, _ = decay.update(direction, decay.init(params), params)
        targets = updates if params is None else params
        steps = jax.tree.map(
            lambda d, t: (-jnp.asarray(rate, d.dtype) * d).astype(jnp.result_type(t)),
            direction,
            targets,
        )
        return steps, MemberState(count, state.hyperparams, tuple(moments))

    return optax.GradientTransformationExtraArgs(init, update)


def lion(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    *,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lion: the sign of an interpolation between momentum and gradient.

    .. math::

        x_t = x_{t-1} - a_t \operatorname{sign}(b_1 m_{t-1} + (1-b_1) g_t), \qquad
        m_t = b_2 m_{t-1} + (1-b_2) g_t

    Args:
      learning_rate: a number or an Optax schedule.
      b1: weight of the momentum in the step, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      weight_decay: decoupled, multiplied by the learning rate.
      mask: what to decay, as in `adam`.

    Returns:
      A gradient transformation with state `MemberState`, 1 float per parameter.

    Raises:
      ValueError: for a value outside its domain or complex parameters.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.lion(1e-4, weight_decay=1.0)

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023.
    """

    def rule(moments, grad, q, t):
        del t
        (momentum,) = moments
        step = jnp.sign(q.b1 * momentum + (1 - q.b1) * grad)
        return step, q.b2 * momentum + (1 - q.b2) * grad

    return _stand_alone(learning_rate, Betas(b1, b2), 1, rule, weight_decay, mask)


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
    bias_correction: bool = True,
    max_of_debiased: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""AMSGrad: Adam with the running maximum of the second moment.

    .. math::

        \hat v_t = \max(\hat v_{t-1}, v_t), \qquad
        x_t = x_{t-1} - a_t \frac{m_t / (1-b_1^t)}{\sqrt{\hat v_t / (1-b_2^t)}
          + \epsilon}

    Args:
      learning_rate: a number or an Optax schedule.
      b1: first-moment decay, in [0, 1).
      b2: second-moment decay, in [0, 1).
      eps: added outside of the square root.
      weight_decay: decoupled, multiplied by the learning rate.
      mask: what to decay, as in `adam`.
      bias_correction: whether moments are bias-corrected.
      max_of_debiased: take the maximum after the bias correction, as
        `optax.amsgrad` does, instead of before.

    Returns:
      A gradient transformation with state `MemberState`, 3 floats per parameter.

    Raises:
      ValueError: for a value outside its domain or complex parameters.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.amsgrad(1e-3)

    References:
      Reddi et al., `On the Convergence of Adam and Beyond
      <https://openreview.net/forum?id=ryQu7f-RZ>`_, ICLR 2018.
    """
    domains.check_number("eps", eps)

    def rule(moments, grad, q, t):
        mu, nu, largest = moments
        mu = q.b1 * mu + (1 - q.b1) * grad
        nu = q.b2 * nu + (1 - q.b2) * grad * grad
        c1 = c2 = jnp.ones_like(t)
        if bias_correction:
            c1, c2 = family.one_minus_power(q.b1, t), family.one_minus_power(q.b2, t)
        if max_of_debiased:
            largest = jnp.maximum(largest, nu / c2)
            root = family.root(largest)
        else:
            largest = jnp.maximum(largest, nu)
            root = family.root(largest / c2)
        return mu / c1 / (root + eps), mu, nu, largest

    return _stand_alone(learning_rate, Betas(b1, b2), 3, rule, weight_decay, mask)
