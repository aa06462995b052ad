r"""MADA: an optimizer that moves its own coefficients by hypergradient descent.

At update t, with G the gradient at x_{t-1} and P_i = dx_{t-1} / dq_i the effect that
coefficient i had on the last step,

.. math::

    h_i = \langle G, P_i \rangle, \qquad
    q_i \leftarrow \operatorname{clip}(q_i - \eta_i h_i), \qquad x_t = O_q(x_{t-1}).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from optax import ScalarOrSchedule

from mada_optax import domains
from mada_optax.descent import ByName
from mada_optax.family import COEFFICIENTS, MadaHyperparams
from mada_optax.settings import Bounds, Coefficient, Mask, Settings
from mada_optax.transform import transformation

_NU_INIT = 1e-15


def _settings(arguments: dict[str, Any], **more: Any) -> Settings:
    arguments.pop("learning_rate", None)
    return Settings(**arguments, **more)


def mada(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Coefficient = 0.9,
    b2: Coefficient = 0.95,
    b3: Coefficient = 0.0,
    c: Coefficient = 1.0,
    rho: Coefficient = 1.0,
    gamma: Coefficient = 1.0,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
    hyper_learning_rate: ByName | None = None,
    hyper_momentum: ByName = 0.0,
    learn: Sequence[str] = COEFFICIENTS,
    active: Sequence[str] | None = None,
    bounds: Bounds | None = None,
    hyper_clip: jax.typing.ArrayLike | None = 10.0,
    hyper_warmup: jax.typing.ArrayLike = 0,
    hyper_grad_scale: jax.typing.ArrayLike = 1.0,
    clip_norm: jax.typing.ArrayLike | None = None,
    lion_betas: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike] = (0.95, 0.98),
    nu_init: jax.typing.ArrayLike = 1e-15,
    n_init: str = "zeros",
    prev_grad: str = "true",
    prev_grad_init: str = "first",
    bias_correction: bool = True,
    debias_n: bool = False,
    detach_average: bool | None = None,
    update_order: str = "q_first",
    reparam: str | None = None,
    compat: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""MADA: Adam, AVGrad, Adan, Yogi and Lion as one optimizer that tunes itself.

    The step is that of `mada_optax.family`; its six coefficients move by the
    hypergradient of the last step, which costs no second derivative and no further
    pass through the model:

    .. math::

        h_i = \langle G_t, \partial x_{t-1} / \partial q_i \rangle, \quad
        q_i \leftarrow \operatorname{clip}(q_i - \eta_i\,\text{buf}_i), \quad
        \text{buf}_i \leftarrow \mu_i\,\text{buf}_i
          + h_i \min(1, \text{hyper\_clip}/(|h_i| + 10^{-6})).

    `optax.tree.get(state, "hyperparams")` holds the coefficients and
    `diagnostics(state)` also their last hypergradients. The state holds 7 floats per
    parameter if everything is learned, and less for each coefficient that is fixed at
    its neutral value (b3 = 0; c, rho, gamma = 1): 3 if only b1 and b2 are learned.

    Args:
      learning_rate: a number or an Optax schedule.
      b1: first-moment decay, in [0, 1). This and the next five are starting values
        where learned; where not, a schedule is allowed too.
      b2: second-moment decay, in [0, 1).
      b3: decay and weight of gradient differences (Adan), in [0, 1).
      c: Adam's second moment (1) against Yogi's (0).
      rho: second moment (1) against its mean over time (0, AVGrad).
      gamma: adaptive direction (1) against Lion's sign (0).
      eps: added outside of the square root.
      weight_decay: decoupled, multiplied by the learning rate.
      mask: a tree of booleans, a prefix of the parameters, or a function that makes
        one: what to decay.
      hyper_learning_rate: eta, one number or a dict by coefficient name. By default
        1e-4 for b1 and b2, 2e-2 for the others, none for "learning_rate".
      hyper_momentum: mu, one number or a dict by coefficient name.
      learn: the coefficients to learn, any subset of the six, and "learning_rate".
      active: coefficients of which branches are kept though they are neither learned
        online nor away from neutral, to be moved by hand or offline.
      bounds: a dict from name to (lower, upper). By default b1 [.01, .99],
        b2 [.501, .99], b3 [0, .99], the others [0, 1], the learning rate is free.
      hyper_clip: largest |h_i|, or `None`.
      hyper_warmup: updates before the coefficients start to move.
      hyper_grad_scale: factor on h: 1/K reproduces runs that accumulated K
        micro-batches and took h from the first.
      clip_norm: global norm to which gradients are clipped. Clipping in here leaves
        the hypergradient un-clipped; an outer clip would scale it too.
      lion_betas: Lion's (b1, b2).
      nu_init: second moments before the first update.
      n_init: "zeros", or "grad_sq" as in the released code.
      prev_grad: "true", or "zero" as in the released training loops, where the
        difference is the gradient itself.
      prev_grad_init: "first" (no difference at the first update) or "zeros".
      bias_correction: whether moments are bias-corrected.
      debias_n: whether the average of differences is too, as in Adan.
      detach_average: whether the hypergradient takes the mean over time as a constant.
        By default it does, while `update` as a whole stays differentiable through the
        mean; True makes it a constant there too, as seen by `hypergradient`.
      update_order: "q_first" applies h to the coming step, "x_first" (the paper's
        Algorithm 1) to the one after.
      reparam: "tanh" moves coefficients in z with q = (tanh(z) + 1) / 2.
      compat: "released" reproduces the authors' code of July 2024: n_init "grad_sq",
        prev_grad_init "zeros", nu_init 1e-15, lion_betas (.931, .98),
        update_order "q_first", detach_average True, debias_n False.

    Returns:
      A gradient transformation with state `MadaState`. Updates have the dtype of the
      parameters; moments and inner products are float32 or wider.

    Raises:
      ValueError: at construction, for a value, name or option that is not allowed;
        at `init` and `update`, for complex parameters; at `update`, for
        `params=None` with weight decay.

    Examples:
      >>> import jax, jax.numpy as jnp, mada_optax, optax
      >>> tx = mada_optax.mada(0.1, hyper_learning_rate=1e-2)
      >>> params = {"w": jnp.array([1.0, -2.0])}
      >>> state = tx.init(params)
      >>> for _ in range(20):
      ...     grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2))(params)
      ...     updates, state = tx.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.sum(params["w"] ** 2) < 1)
      True
      >>> bool(state.hyperparams.b1 != 0.9)
      True

    References:
      Ozkara et al., `MADA: Meta-Adaptive Optimizers through hyper-gradient Descent
      <https://arxiv.org/abs/2401.08893>`_, ICML 2024.
    """
    arguments = locals()
    domains.check_learning_rate(learning_rate)
    return transformation(learning_rate, _settings(arguments))


def scale_by_mada(
    *,
    b1: Coefficient = 0.9,
    b2: Coefficient = 0.95,
    b3: Coefficient = 0.0,
    c: Coefficient = 1.0,
    rho: Coefficient = 1.0,
    gamma: Coefficient = 1.0,
    eps: jax.typing.ArrayLike = 1e-8,
    hyper_learning_rate: ByName | None = None,
    hyper_momentum: ByName = 0.0,
    learn: Sequence[str] = COEFFICIENTS,
    active: Sequence[str] | None = None,
    bounds: Bounds | None = None,
    hyper_clip: jax.typing.ArrayLike | None = 10.0,
    hyper_warmup: jax.typing.ArrayLike = 0,
    hyper_grad_scale: jax.typing.ArrayLike = 1.0,
    clip_norm: jax.typing.ArrayLike | None = None,
    lion_betas: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike] = (0.95, 0.98),
    nu_init: jax.typing.ArrayLike = 1e-15,
    n_init: str = "zeros",
    prev_grad: str = "true",
    prev_grad_init: str = "first",
    bias_correction: bool = True,
    debias_n: bool = False,
    detach_average: bool | None = None,
    update_order: str = "q_first",
    reparam: str | None = None,
    compat: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """MADA's direction alone, to be scaled by a learning rate further down a chain.

    What follows in the chain is not seen: hypergradients are those of a learning rate
    of 1, so that hyper-learning rates of `mada` correspond to theirs times the
    learning rate here. Arguments are those of `mada`.

    Returns:
      A gradient transformation with state `MadaState`.

    Raises:
      ValueError: as `mada`.

    Examples:
      >>> import mada_optax, optax
      >>> tx = optax.chain(
      ...     mada_optax.scale_by_mada(hyper_learning_rate=1e-5),
      ...     optax.scale_by_learning_rate(1e-3),
      ... )
    """
    return transformation(None, _settings(locals()))


def hyper_adam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
    hyper_learning_rate: ByName | None = None,
    hyper_momentum: ByName = 0.0,
    learn: Sequence[str] = ("b1", "b2"),
    bounds: Bounds | None = None,
    hyper_clip: jax.typing.ArrayLike | None = 10.0,
    hyper_warmup: jax.typing.ArrayLike = 0,
    hyper_grad_scale: jax.typing.ArrayLike = 1.0,
    clip_norm: jax.typing.ArrayLike | None = None,
    nu_init: jax.typing.ArrayLike = _NU_INIT,
    bias_correction: bool = True,
    update_order: str = "q_first",
    reparam: str | None = None,
    compat: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam that learns b1 and b2, and on request its learning rate.

    Three floats of state per parameter. Arguments are those of `mada`, and

    Args:
      learning_rate: a number or a schedule; a number if it is learned.
      b1: first-moment decay to start from, in [0, 1).
      b2: second-moment decay to start from, in [0, 1).
      eps: added outside of the square root.
      weight_decay: as in `mada`.
      mask: as in `mada`.
      hyper_learning_rate: by default 1e-4; has to be given for "learning_rate".
      hyper_momentum: as in `mada`.
      learn: a subset of "b1", "b2", "learning_rate".
      bounds: by default b1 [.01, .99], b2 [.5, .99], the learning rate is free.
      hyper_clip: as in `mada`.
      hyper_warmup: as in `mada`.
      hyper_grad_scale: as in `mada`.
      clip_norm: as in `mada`.
      nu_init: second moments before the first update.
      bias_correction: as in `mada`.
      update_order: as in `mada`.
      reparam: as in `mada`.
      compat: "released" starts the second moments at eps, as the authors' stand-alone
        class does.

    Returns:
      A gradient transformation with state `MadaState`.

    Raises:
      ValueError: as `mada`.

    Examples:
      >>> import mada_optax
      >>> tx = mada_optax.hyper_adam(
      ...     1e-3,
      ...     learn=("b1", "b2", "learning_rate"),
      ...     hyper_learning_rate={"learning_rate": 1e-6},
      ... )
    """
    arguments = locals()
    domains.check_names("learn", learn, ("b1", "b2", "learning_rate"))
    domains.check_option("compat", arguments.pop("compat"), (None, "released"))
    if compat == "released":
        if nu_init is not _NU_INIT:
            raise ValueError(
                'compat="released" starts the second moments at eps, but '
                f"nu_init={nu_init!r} was passed; leave one of them out."
            )
        arguments["nu_init"] = eps
    domains.check_learning_rate(learning_rate)
    box = {**domains.BOX, "b2": (0.5, 0.99)}
    return transformation(learning_rate, _settings(arguments, box=box))


def mada_final_state(
    state_or_hyperparams: Any,
    learning_rate: ScalarOrSchedule,
    *,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: jax.typing.ArrayLike | None = 0.0,
    mask: Mask | None = None,
    clip_norm: jax.typing.ArrayLike | None = None,
    lion_betas: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike] = (0.95, 0.98),
    nu_init: jax.typing.ArrayLike = 1e-15,
    n_init: str = "zeros",
    prev_grad: str = "true",
    prev_grad_init: str = "first",
    bias_correction: bool = True,
    debias_n: bool = False,
    compat: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """MADA-FS: the fixed optimizer at the coefficients that a run of MADA ended with.

    Train from scratch with it: same start, data order, schedule and number of steps.

    Args:
      state_or_hyperparams: the state at the end of a run, also of a chain; or its
        `hyperparams`; or a dict of the six coefficients.
      learning_rate: a number or a schedule. The other arguments are those of `mada`
        and should be those of the run.
      eps: added outside of the square root.
      weight_decay: as in `mada`.
      mask: as in `mada`.
      clip_norm: as in `mada`.
      lion_betas: as in `mada`.
      nu_init: as in `mada`.
      n_init: as in `mada`.
      prev_grad: as in `mada`.
      prev_grad_init: as in `mada`.
      bias_correction: as in `mada`.
      debias_n: as in `mada`.
      compat: as in `mada`.

    Returns:
      A gradient transformation with state `MadaState` that learns nothing online, so
      that it has the memory of a fixed optimizer.

    Raises:
      ValueError: as `mada`; or no hyper-parameters are found.

    Examples:
      >>> import jax.numpy as jnp, mada_optax
      >>> state = mada_optax.mada(1e-3).init({"w": jnp.ones(2)})
      >>> tx = mada_optax.mada_final_state(state, 1e-3)
    """
    arguments = locals()
    found = arguments.pop("state_or_hyperparams")
    if not isinstance(found, (MadaHyperparams, Mapping)):
        found = optax.tree.get(found, "hyperparams")
    if isinstance(found, MadaHyperparams):
        found = found._asdict()
    if not isinstance(found, Mapping) or not set(COEFFICIENTS) <= set(found):
        raise ValueError(
            "state_or_hyperparams must be a state of `mada`, its hyperparams or a dict "
            f"of {', '.join(COEFFICIENTS)}, got {type(state_or_hyperparams).__name__}."
        )
    domains.check_learning_rate(learning_rate)
    coefficients = {
        name: value if (known := domains.concrete(value)) is None else known
        for name, value in found.items()
        if name in COEFFICIENTS
    }
    return transformation(learning_rate, _settings(arguments, learn=(), **coefficients))
