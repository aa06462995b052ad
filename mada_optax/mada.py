r"""MADA: an optimizer that moves its own coefficients by hypergradient descent.

At update t, with G the gradient at x_{t-1} and P_i = dx_{t-1} / dq_i the effect that
coefficient i had on the last step,

.. math::

    h_i = \langle G, P_i \rangle, \qquad
    q_i \leftarrow \operatorname{clip}(q_i - \eta_i h_i), \qquad x_t = O_q(x_{t-1}).

Nothing of the last step is kept but its gradient: P_i is evaluated when G is known,
from the moments before that step. With everything learned, the state holds seven
floats per parameter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import ScalarOrSchedule

from mada_optax import blocks, domains, family
from mada_optax.descent import ByName
from mada_optax.family import COEFFICIENTS, MadaHyperparams, Moments
from mada_optax.leaves import (
    increment,
    reject_complex,
    vary_like,
    wide_dtype,
    widest_dtype,
)
from mada_optax.settings import FIELDS, Bounds, Coefficient, Mask, Settings

_NU_INIT = 1e-15


class Learning(NamedTuple):
    """What a transformation that learns its coefficients remembers.

    Vectors of length 7 follow the fields of `MadaHyperparams`.

    Attributes:
      hypergradient: raw h of the last update, (7,), 0 for what is not learned.
      momentum: heavy-ball buffers of the coefficients, (7,).
      applied: coefficients and learning rate of the last step, (7,).
      skipped: updates whose hypergradient was not finite, int32 scalar.
    """

    hypergradient: jax.Array
    momentum: jax.Array
    applied: jax.Array
    skipped: jax.Array


class MadaState(NamedTuple):
    """State of the MADA family; trees are like the parameters, float32 or wider.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: the coefficients: read them, set them, learn them.
      learning: `None` if no coefficient is learned online.
      moments: those after the last step; but before it, where a coefficient is
        learned online.
      grad: gradients of the last step, or `None`.
      change: their change since the step before, or `None`.
    """

    count: jax.Array
    hyperparams: MadaHyperparams
    learning: Learning | None
    moments: Moments
    grad: optax.Updates | None
    change: optax.Updates | None


class _Leaf(NamedTuple):
    """One leaf of the state."""

    moments: Moments
    grad: Any
    change: Any


def _leaves(state: MadaState, treedef: Any) -> list[_Leaf]:
    def column(tree):
        if tree is None:
            return [None] * treedef.num_leaves
        return treedef.flatten_up_to(tree)

    moments = zip(*map(column, state.moments), strict=True)
    rest = zip(column(state.grad), column(state.change), strict=True)
    return [_Leaf(Moments(*m), *r) for m, r in zip(list(moments), rest, strict=True)]


def _with_leaves(state: MadaState, leaves: list[_Leaf], treedef: Any) -> MadaState:
    def tree(like, column):
        return None if like is None else treedef.unflatten(column)

    return state._replace(
        moments=Moments(
            *[
                tree(like, [leaf.moments[i] for leaf in leaves])
                for i, like in enumerate(state.moments)
            ]
        ),
        grad=tree(state.grad, [leaf.grad for leaf in leaves]),
        change=tree(state.change, [leaf.change for leaf in leaves]),
    )


def _clip_by_global_norm(grads: list[jax.Array], max_norm: Any) -> list[jax.Array]:
    norm = family.root(optax.tree.norm(grads, squared=True))
    scale = jnp.minimum(1.0, max_norm / (norm + 1e-6))
    return [scale.astype(g.dtype) * g for g in grads]


class _Mada:
    """`init` and `update` of every transformation of this file."""

    def __init__(
        self, learning_rate: optax.ScalarOrSchedule | None, settings: Settings
    ):
        if learning_rate is not None:
            domains.check_learning_rate(learning_rate)
        self.settings = settings
        self.scales = learning_rate is not None
        self.start = {name: getattr(settings, name) for name in COEFFICIENTS}
        self.start["learning_rate"] = learning_rate if self.scales else 1.0
        self.learn = tuple(name for name in FIELDS if name in settings.learn)
        if "learning_rate" in self.learn and (
            not self.scales or callable(learning_rate)
        ):
            raise ValueError(
                "learn names 'learning_rate', so learning_rate must be a number, "
                f"got {learning_rate!r}."
            )
        self.form = settings.form
        self.descent = settings.descent(self.start)
        self.keeps_change = (
            bool(self.learn) and self.form.uses_change and settings.prev_grad == "true"
        )
        self.keeps_grad = bool(self.learn) or (
            self.form.uses_change and settings.prev_grad == "true"
        )

    def init(self, params: Any) -> Any:
        reject_complex(params)
        dtype = widest_dtype(params)
        count = jnp.zeros((), jnp.int32)
        q = jnp.stack(
            [
                jnp.asarray(x(count) if callable(x) else x, dtype)
                for x in self.start.values()
            ]
        )
        q = vary_like(q, params)

        def full(needed, value=0.0):
            if not needed:
                return None
            return jax.tree.map(
                lambda p: jnp.full_like(p, value, dtype=wide_dtype(p)), params
            )

        fill = Moments(0.0, self.settings.nu_init, self.settings.nu_init, 0.0, 0.0)
        learning = None
        if self.learn:
            zeros = jnp.zeros_like(q)
            skipped = vary_like(jnp.zeros((), jnp.int32), params)
            learning = Learning(zeros, zeros + 0, q, skipped)
        return MadaState(
            count=count,
            hyperparams=self._hyperparams(q),
            learning=learning,
            moments=Moments(*map(full, self.form.keeps, fill)),
            grad=full(self.keeps_grad),
            change=full(self.keeps_change),
        )

    def _hyperparams(self, q: jax.Array) -> MadaHyperparams:
        hyperparams = MadaHyperparams(*q)
        if "learning_rate" in self.learn:
            return hyperparams
        return hyperparams._replace(learning_rate=None)

    def _coefficients(self, state: MadaState) -> jax.Array:
        """The stored coefficients and the learning rate of the coming step, (7,)."""
        dtype = state.hyperparams.b1.dtype

        def now(name, start):
            if callable(start):
                return start(state.count)
            stored = getattr(state.hyperparams, name)
            return start if stored is None else stored

        return jnp.stack(
            [jnp.asarray(now(name, x), dtype) for name, x in self.start.items()]
        )

    def _last_change(self, leaf: _Leaf) -> Any:
        return leaf.change if self.keeps_change else leaf.grad

    def _hypergradient(
        self, q: jax.Array, count: jax.Array, leaves: list[_Leaf], grads
    ) -> jax.Array:
        """<G, dx/dq> of the last step, (7,), where q has the coefficients it used."""
        h = jnp.zeros_like(q)
        for leaf, grad in zip(leaves, grads, strict=True):
            s = family.scalars(q, count, self.form, grad.dtype)
            arrays, treedef = jax.tree.flatten((leaf, grad))

            def products(*arrays, s=s, treedef=treedef):
                leaf, grad = treedef.unflatten(arrays)
                return family.partials(
                    leaf.moments,
                    leaf.grad,
                    self._last_change(leaf),
                    grad,
                    s,
                    self.form,
                    self.learn,
                )

            # One leaf after the other: the products of one alone exist at a time.
            h, arrays = jax.lax.optimization_barrier((h, arrays))
            for name, total in blocks.sums(products, arrays).items():
                h = h.at[FIELDS.index(name)].add(total.astype(h.dtype))
        # x moves by the learning rate times the direction, whose derivative by the
        # learning rate itself is the direction.
        return h * jnp.full_like(h, q[-1]).at[-1].set(1)

    def _adapt(
        self, state: Any, leaves: list[_Leaf], grads: list[jax.Array]
    ) -> tuple[Any, list[Moments]]:
        """Moves the coefficients, and lets the moments catch up with the last step."""
        learning: Learning = state.learning
        first, count = state.count == 0, jnp.maximum(state.count, 1)
        h = self._hypergradient(learning.applied, count, leaves, grads)
        finite = jnp.isfinite(h).all()
        h = jnp.where(first & finite, 0, h)
        q = self._coefficients(state)
        enabled = finite & (state.count >= self.settings.hyper_warmup)
        moved, momentum = self.descent.step(q, learning.momentum, h, enabled)
        caught_up = []
        for leaf in leaves:
            s = family.scalars(learning.applied, count, self.form, leaf.grad.dtype)
            grad, change = blocks.after(tuple(h), (leaf.grad, self._last_change(leaf)))
            s = family.hold(s, first)
            new = family.advance(leaf.moments, grad, change, s, self.form)
            caught_up.append(blocks.write_out(new))
        learning = Learning(
            hypergradient=h,
            momentum=momentum,
            applied=moved if self.settings.update_order == "q_first" else q,
            skipped=learning.skipped + ~finite,
        )
        state = state._replace(hyperparams=self._hyperparams(moved), learning=learning)
        return state, caught_up

    def _change(self, leaf: _Leaf, grad: jax.Array, first: jax.Array) -> Any:
        """The change of the gradient since the last step."""
        if not self.form.uses_change:
            return None
        if self.settings.prev_grad == "zero":
            return grad
        change = grad - leaf.grad
        if self.settings.prev_grad_init == "first":
            change = jnp.where(first, 0, change)
        return change

    def _decay(self, params: Any, treedef: Any) -> list[Any]:
        """Per leaf: the weight decay where the mask is true, else 0."""
        settings = self.settings
        if settings.weight_decay is None:
            return [None] * treedef.num_leaves
        if params is None:
            raise ValueError(domains.NO_PARAMS)
        mask = settings.mask(params) if callable(settings.mask) else settings.mask
        factors = jax.tree.map(
            lambda keep, sub: jax.tree.map(
                lambda _: settings.weight_decay if keep else 0.0, sub
            ),
            True if mask is None else mask,
            params,
        )
        return treedef.flatten_up_to(factors)

    def update(
        self,
        updates: Any,
        state: Any,
        params: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, Any]:
        del extra_args
        reject_complex(updates)
        given, treedef = jax.tree.flatten(updates)
        targets = given if params is None else treedef.flatten_up_to(params)
        decay = self._decay(params, treedef)
        leaves = _leaves(state, treedef)
        raw = [
            jnp.asarray(g, jax.tree.leaves(leaf)[0].dtype)
            for g, leaf in zip(given, leaves, strict=True)
        ]
        grads = raw
        if self.settings.clip_norm is not None:
            grads = _clip_by_global_norm(raw, self.settings.clip_norm)

        first = state.count == 0
        count = increment(state.count)
        if self.learn:
            state, before = self._adapt(state, leaves, raw)
            q = state.learning.applied
            grads = [blocks.after(*pair) for pair in zip(before, grads, strict=True)]
        else:
            before = [leaf.moments for leaf in leaves]
            q = self._coefficients(state)
            state = state._replace(hyperparams=self._hyperparams(q))

        steps, stored = [], []
        for leaf, old, grad, factor, target in zip(
            leaves, before, grads, decay, targets, strict=True
        ):
            if old.diff is not None and self.settings.n_init == "grad_sq":
                old = old._replace(diff=jnp.where(first, grad * grad, old.diff))
            change = self._change(leaf, grad, first)
            if self.keeps_change:
                change = blocks.write_out(change)
                grad = blocks.after(change, grad)
            s = family.scalars(q, count, self.form, grad.dtype)
            new = family.advance(old, grad, change, s, self.form)
            step = family.direction(old, new, grad, s, self.form)
            if factor is not None:
                step += factor * target.astype(step.dtype)
            if self.scales:
                step *= -s.rate
            steps.append(step.astype(jnp.result_type(target)))
            stored.append(_Leaf(old if self.learn else new, grad, change))
        state = _with_leaves(state._replace(count=count), stored, treedef)
        return treedef.unflatten(steps), state


def transformation(
    learning_rate: optax.ScalarOrSchedule | None, settings: Settings
) -> optax.GradientTransformationExtraArgs:
    """The transformation with these settings; `None` leaves out the learning rate."""
    rule = _Mada(learning_rate, settings)
    return optax.GradientTransformationExtraArgs(rule.init, rule.update)


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


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """Coefficients of the last step and raw hypergradients, to log and to plot.

    Args:
      state: a state that holds one `MadaState`, also of a chain.

    Returns:
      Scalars by name: "b1", ..., "gamma", and for a transformation that learns online
      "hypergradient/b1", ..., "hypergradient/learning_rate", "learning_rate" and
      "skipped". A hypergradient is before clipping, with respect to the coefficients
      of the step before, and 0 for what is not learned.

    Raises:
      ValueError: `state` holds no `MadaState`, or several.

    Examples:
      >>> import jax.numpy as jnp, mada_optax
      >>> state = mada_optax.mada(1e-3).init({"w": jnp.ones(2)})
      >>> float(mada_optax.diagnostics(state)["hypergradient/b1"])
      0.0
    """
    found = [
        leaf
        for leaf in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, MadaState))
        if isinstance(leaf, MadaState)
    ]
    if len(found) != 1:
        raise ValueError(f"state must hold one MadaState, got {len(found)}.")
    (state,) = found
    if state.learning is None:
        return {name: getattr(state.hyperparams, name) for name in COEFFICIENTS}
    named = zip(FIELDS, state.learning.hypergradient, strict=True)
    return {
        **dict(zip(FIELDS, state.learning.applied, strict=True)),
        **{f"hypergradient/{name}": h for name, h in named},
        "skipped": state.learning.skipped,
    }
