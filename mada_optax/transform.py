"""The transformation behind MADA: its state, and one update of coefficients and step.

Nothing of the last step is kept but its gradient: the hypergradient is evaluated when
the next gradient is known, from the moments before that step. With everything learned,
the state holds seven floats per parameter.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mada_optax import blocks, domains, family
from mada_optax.family import COEFFICIENTS, MadaHyperparams, Moments
from mada_optax.leaves import (
    increment,
    reject_complex,
    vary_like,
    wide_dtype,
    widest_dtype,
)
from mada_optax.settings import FIELDS, Settings


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
    """`init` and `update` of every transformation of the family."""

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
        # Leaves of one shape share a trace.
        self.sums: Any = jax.jit(self._sums)
        self.catch_up: Any = jax.jit(self._catch_up)
        self.step: Any = jax.jit(self._step)

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

    def _scalars(self, q: jax.Array, t: jax.Array) -> Callable[[Any], family.Scalars]:
        """The numbers of step t by dtype, each made once."""
        return functools.cache(lambda dtype: family.scalars(q, t, self.form, dtype))

    def _last_change(self, leaf: _Leaf) -> Any:
        return leaf.change if self.keeps_change else leaf.grad

    def _sums(self, leaf: _Leaf, grad: jax.Array, s: family.Scalars) -> jax.Array:
        """<G, d(-direction)/dq> of one leaf, (7,)."""
        arrays, treedef = jax.tree.flatten((leaf, grad))

        def products(*arrays):
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

        sums = blocks.sums(products, arrays)
        return jnp.stack([sums.get(name, jnp.zeros_like(s.t)) for name in FIELDS])

    def _hypergradient(
        self, q: jax.Array, count: jax.Array, leaves: list[_Leaf], grads
    ) -> jax.Array:
        """<G, dx/dq> of the last step, (7,), where q has the coefficients it used."""
        h = jnp.zeros_like(q)
        scalars = self._scalars(q, count)
        for leaf, grad in zip(leaves, grads, strict=True):
            # One leaf after the other: the products of one alone exist at a time.
            h, arrays = jax.lax.optimization_barrier((h, (leaf, grad)))
            h += self.sums(*arrays, scalars(grad.dtype)).astype(h.dtype)
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
        scalars = self._scalars(learning.applied, count)
        held = functools.cache(lambda dtype: family.hold(scalars(dtype), first))
        zero = blocks.after(tuple(h), jnp.zeros_like(h[0]))
        for leaf in leaves:
            dtype = leaf.grad.dtype
            caught_up.append(self.catch_up(leaf, zero.astype(dtype), held(dtype)))
        learning = Learning(
            hypergradient=h,
            momentum=momentum,
            applied=moved if self.settings.update_order == "q_first" else q,
            skipped=learning.skipped + ~finite,
        )
        state = state._replace(hyperparams=self._hyperparams(moved), learning=learning)
        return state, caught_up

    def _catch_up(self, leaf: _Leaf, zero: jax.Array, s: family.Scalars) -> Moments:
        """The moments after the last step; `zero` is known when they may change."""
        grad, change = leaf.grad + zero, self._last_change(leaf) + zero
        return blocks.write_out(
            family.advance(leaf.moments, grad, change, s, self.form)
        )

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

    def _step(
        self,
        leaf: _Leaf,
        old: Moments,
        grad: jax.Array,
        decay: Any,
        target: jax.Array,
        first: jax.Array,
        s: family.Scalars,
    ) -> tuple[jax.Array, _Leaf]:
        """The update of one leaf, in the dtype of `target`, and its state."""
        if old.diff is not None and self.settings.n_init == "grad_sq":
            old = old._replace(diff=jnp.where(first, grad * grad, old.diff))
        change = self._change(leaf, grad, first)
        if self.keeps_change:
            change = blocks.write_out(change)
            grad = blocks.after(change, grad)
        new = family.advance(old, grad, change, s, self.form)
        step = family.direction(old, new, grad, s, self.form)
        if decay is not None:
            step += decay * target.astype(step.dtype)
        if self.scales:
            step *= -s.rate
        kept = _Leaf(old if self.learn else new, grad, change)
        return step.astype(jnp.result_type(target)), kept

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

        scalars = self._scalars(q, count)
        steps, stored = [], []
        for leaf, old, grad, *rest in zip(
            leaves, before, grads, decay, targets, strict=True
        ):
            step, kept = self.step(leaf, old, grad, *rest, first, scalars(grad.dtype))
            steps.append(step)
            stored.append(kept)
        state = _with_leaves(state._replace(count=count), stored, treedef)
        return treedef.unflatten(steps), state


def transformation(
    learning_rate: optax.ScalarOrSchedule | None, settings: Settings
) -> optax.GradientTransformationExtraArgs:
    """The transformation with these settings; `None` leaves out the learning rate."""
    rule = _Mada(learning_rate, settings)
    return optax.GradientTransformationExtraArgs(rule.init, rule.update)


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
