r"""Any transformation with `hyperparams` in its state, made adaptive while it trains.

With u(q) the complete update that the inner transformation made at the last step and
G the gradient where that update led to,

.. math::

    h = \partial_q \langle G_t, u_{t-1}(q) \rangle, \qquad
    q \leftarrow \operatorname{clip}(q + \text{hyper\_optimizer}(h)).

The derivative is that of the one step: the gradient and the state that went into it are
constants. It is taken by automatic differentiation of `inner.update` when G is known,
so that the state keeps what went into the last step, but no derivative.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mada_optax import domains
from mada_optax.coordinates import COORDINATES
from mada_optax.door import put, take
from mada_optax.leaves import increment, vary_like


class Previous(NamedTuple):
    """What went into the last step; `applied` has the leaves of `hyperparams`."""

    applied: list[jax.Array]
    inner: Any
    grads: optax.Updates
    params: optax.Params


class HypergradientState(NamedTuple):
    """State of `hypergradient`.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: those of the inner transformation, which are kept here alone.
      hypergradient: raw h of the last update, one array per learned entry.
      filtered: moving averages of h, `()` without a filter.
      loss: moving average of the loss, `()` without a spike guard.
      skipped: updates whose hypergradient was not finite, int32 scalar.
      hyper_optimizer: states of the hyper-optimizers, one per learned entry.
      inner: the inner state without its hyper-parameters.
      previous: what went into the last step.
    """

    count: jax.Array
    hyperparams: Any
    hypergradient: tuple[Any, ...]
    filtered: tuple[Any, ...]
    loss: Any
    skipped: jax.Array
    hyper_optimizer: tuple[Any, ...]
    inner: Any
    previous: Previous


def _entries(hyperparams: Any) -> dict[str, Any]:
    """The hyper-parameters by name; a tree without names is one entry."""
    if isinstance(hyperparams, Mapping):
        return dict(sorted(hyperparams.items()))
    if hasattr(hyperparams, "_asdict"):
        return {k: v for k, v in hyperparams._asdict().items() if v is not None}
    return {"hyperparams": hyperparams}


def _rebuild(hyperparams: Any, entries: dict[str, Any]) -> Any:
    if isinstance(hyperparams, Mapping):
        return {**hyperparams, **entries}
    if hasattr(hyperparams, "_asdict"):
        return hyperparams._replace(**entries)
    return entries.get("hyperparams", hyperparams)


def _is_floating(tree: Any) -> bool:
    return all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(tree))


def _scheduled(state: Any) -> set[str]:
    """Names that `optax.inject_hyperparams` overwrites by a schedule."""
    found = optax.tree.get_all_with_path(state, "hyperparams_states")
    return {name for _, states in found for name in states}


def _where(condition: jax.Array, tree: Any, other: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree, other)


def _cosines(last_update: Any, learned: tuple[Any, ...], grads: Any) -> tuple[Any, ...]:
    """<G, P> / (|G| |P|) for scalar entries."""
    for entry in learned:
        if jnp.ndim(entry) != 0:
            raise ValueError(
                "normalize=True needs scalar hyper-parameters, got one of shape "
                f"{jnp.shape(entry)}: choose others by `learn`."
            )
    _, push_forward = jax.linearize(last_update, learned)
    norm = optax.tree.norm(grads)

    def cosine(i):
        tangent = tuple(jnp.full_like(x, i == j) for j, x in enumerate(learned))
        change = push_forward(tangent)
        scale = norm * optax.tree.norm(change)
        positive = scale > 0
        inner = optax.tree.vdot(optax.tree.cast_like(grads, change), change)
        return jnp.where(positive, inner / jnp.where(positive, scale, 1), 0)

    return tuple(cosine(i).astype(x.dtype) for i, x in enumerate(learned))


class _Hypergradient:
    """`init` and `update` of `hypergradient`, which documents the arguments."""

    def __init__(
        self,
        inner,
        hyper_optimizer,
        learn,
        bounds,
        warmup,
        normalize,
        coordinates,
        filter_decay,
        spike,
    ):
        for name, coordinate in coordinates.items():
            domains.check_option(f"coordinates[{name!r}]", coordinate, COORDINATES)
        domains.check_number("warmup", warmup)
        domains.check_decay("filter_decay", filter_decay)
        if spike is not None:
            domains.check_number("spike", spike, 1.0)
        self.inner = inner
        self.hyper_optimizer = hyper_optimizer
        self.learn = learn
        self.warmup = warmup
        self.normalize = normalize
        self.coordinates = coordinates
        self.filter_decay = filter_decay
        self.spike = spike
        self.given = {"learn": learn, "bounds": bounds, "coordinates": coordinates}
        if not hasattr(hyper_optimizer, "init"):
            self.given["hyper_optimizer"] = hyper_optimizer
        self.bounds = domains.resolve_bounds(
            bounds, {**domains.DOMAIN, **dict.fromkeys(bounds or (), domains.FREE)}
        )

    def _names(self, hyperparams: Any, rest: Any) -> tuple[str, ...]:
        """The entries to learn."""
        entries, scheduled = _entries(hyperparams), _scheduled(rest)
        for argument, names in self.given.items():
            domains.check_names(argument, names or (), tuple(entries))
        if self.learn is None:
            return tuple(
                name
                for name, entry in entries.items()
                if _is_floating(entry)
                and name not in scheduled
                and name not in ("eps", "eps_root")
            )
        for name in self.learn:
            if name in scheduled:
                raise ValueError(
                    f"learn names {name!r}, which follows a schedule: pass a number "
                    "for it, or take it out of `learn`."
                )
        return tuple(name for name in entries if name in self.learn)

    def _optimizer(self, name: str) -> optax.GradientTransformation:
        if hasattr(self.hyper_optimizer, "init"):
            return self.hyper_optimizer
        return self.hyper_optimizer.get(name, optax.set_to_zero())

    def init(self, params: optax.Params) -> HypergradientState:
        hyperparams, rest = take(self.inner.init(params))
        hyperparams = vary_like(hyperparams, params)
        names = self._names(hyperparams, rest)
        learned = [_entries(hyperparams)[name] for name in names]

        def zeros():
            return tuple(jax.tree.map(jnp.zeros_like, learned))

        return HypergradientState(
            count=jnp.zeros((), jnp.int32),
            hyperparams=hyperparams,
            hypergradient=zeros(),
            filtered=zeros() if self.filter_decay else (),
            loss=() if self.spike is None else jnp.zeros((), jnp.float32),
            skipped=vary_like(jnp.zeros((), jnp.int32), params),
            hyper_optimizer=tuple(
                self._optimizer(name).init(entry)
                for name, entry in zip(names, learned, strict=True)
            ),
            inner=rest,
            previous=Previous(
                jax.tree.map(jnp.copy, jax.tree.leaves(hyperparams)),
                jax.tree.map(jnp.copy, rest),
                jax.tree.map(jnp.zeros_like, params),
                jax.tree.map(jnp.zeros_like, params),
            ),
        )

    def _derivative(
        self, state: HypergradientState, names, grads, params
    ) -> tuple[Any, ...]:
        """h, by differentiating the inner update of the last step."""
        first, previous = state.count == 0, state.previous
        treedef = jax.tree.structure(state.hyperparams)
        applied = treedef.unflatten(previous.applied)
        # Before the first step there is nothing to differentiate: arguments at which
        # the derivative is finite keep it out of the way of outer derivatives.
        like = jax.eval_shape(self.inner.init, params)
        last_grads = _where(first, jax.tree.map(jnp.ones_like, grads), previous.grads)
        last_params = _where(first, params, previous.params)

        def last_update(learned):
            hyperparams = _rebuild(applied, dict(zip(names, learned, strict=True)))
            updates, _ = self.inner.update(
                last_grads, put(previous.inner, hyperparams, like), last_params
            )
            return updates

        learned = tuple(_entries(applied)[name] for name in names)
        if self.normalize:
            h = _cosines(last_update, learned, grads)
        else:
            updates, pull_back = jax.vjp(last_update, learned)
            (h,) = pull_back(optax.tree.cast_like(grads, updates))
        return _where(first, jax.tree.map(jnp.zeros_like, h), h)

    def _move(self, name, entry, h, optimizer_state):
        """One step of the hyper-optimizer, in the coordinates of the entry."""
        forward, inverse = COORDINATES[self.coordinates.get(name, "identity")]
        z = jax.tree.map(forward, entry)
        _, pull_back = jax.vjp(lambda z: jax.tree.map(inverse, z), z)
        (slope,) = pull_back(h)
        step, optimizer_state = self._optimizer(name).update(slope, optimizer_state, z)
        moved = jax.tree.map(inverse, optax.apply_updates(z, step))
        lower, upper = self.bounds.get(name, domains.FREE)
        return jax.tree.map(lambda x: jnp.clip(x, lower, upper), moved), optimizer_state

    def _adapt(self, state, names, h, value) -> HypergradientState:
        """Moves the hyper-parameters, where nothing speaks against it."""
        enabled = (state.count > 0) & (state.count >= self.warmup)
        loss = state.loss
        if self.spike is not None:
            loss, calm = self._guard(state, value)
            enabled &= calm
        used = filtered = h
        if self.filter_decay:
            d = self.filter_decay
            filtered = jax.tree.map(lambda f, x: d * f + (1 - d) * x, state.filtered, h)
            seen = jnp.maximum(state.count, 1).astype(jnp.float32)
            used = optax.tree.scale(1 / (1 - d**seen), filtered)

        entries = _entries(state.hyperparams)
        moved, optimizers, kept = {}, [], []
        for i, name in enumerate(names):
            finite = jnp.all(
                jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(h[i])])
            )
            new = self._move(name, entries[name], used[i], state.hyper_optimizer[i])
            old = (entries[name], state.hyper_optimizer[i])
            moved[name], optimizer = _where(enabled & finite, new, old)
            optimizers.append(optimizer)
            if self.filter_decay:
                kept.append(_where(finite, filtered[i], state.filtered[i]))
        broken = ~jnp.isfinite(optax.tree.sum(h))
        return state._replace(
            hyperparams=_rebuild(state.hyperparams, moved),
            hypergradient=h,
            filtered=tuple(kept),
            loss=loss,
            skipped=state.skipped + broken.astype(jnp.int32),
            hyper_optimizer=tuple(optimizers),
        )

    def _guard(self, state, value):
        """The moving average of the loss, and whether this loss is no spike."""
        if value is None:
            raise TypeError("`spike` needs the loss: call update(..., value=loss).")
        value = jnp.asarray(value, jnp.float32)
        mean = state.loss / (1 - 0.9 ** jnp.maximum(state.count, 1))
        limit = mean + (self.spike - 1) * jnp.abs(mean)
        calm = jnp.isfinite(value) & (value <= limit)
        loss = jnp.where(
            jnp.isfinite(value), 0.9 * state.loss + 0.1 * value, state.loss
        )
        return loss, calm

    def update(
        self,
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: jax.typing.ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "hypergradient needs the parameters: call "
                "update(grads, state, params), got params=None."
            )
        names = self._names(state.hyperparams, state.inner)
        h = self._derivative(state, names, updates, params)
        state = self._adapt(state, names, h, value)
        if value is not None:
            extra_args["value"] = value
        like = jax.eval_shape(self.inner.init, params)
        before = put(state.inner, state.hyperparams, like)
        steps, after = self.inner.update(updates, before, params, **extra_args)
        hyperparams, rest = take(after)
        previous = Previous(
            jax.tree.leaves(state.hyperparams),
            state.inner,
            optax.tree.cast_like(updates, params),
            params,
        )
        # Optax promotes low-precision states and updates to the hyper-parameters.
        return optax.tree.cast_like(steps, params), state._replace(
            count=increment(state.count),
            hyperparams=optax.tree.cast_like(hyperparams, state.hyperparams),
            inner=optax.tree.cast_like(rest, state.inner),
            previous=previous,
        )


def hypergradient(
    inner: optax.GradientTransformation,
    hyper_optimizer: optax.GradientTransformation
    | Mapping[str, optax.GradientTransformation],
    *,
    learn: Sequence[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    warmup: int = 0,
    normalize: bool = False,
    coordinates: Mapping[str, str] | None = None,
    filter_decay: float = 0.0,
    spike: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learns the hyper-parameters of `inner` by one-step hypergradient descent.

    Everything that `inner` does to the update is differentiated: clipping, decay,
    schedules. The result is again a transformation with `hyperparams` in its state.
    It keeps a second inner state, the last gradient and the last parameters.

    Args:
      inner: a transformation with one field `hyperparams` in its state, such as
        `optax.inject_hyperparams(optax.adamw)(1e-3)`, alone or in a chain. Where it
        takes square roots it should guard them (`eps_root=1e-16` in Optax): their
        derivative is infinite for a parameter that never had a gradient.
      hyper_optimizer: moves the learned hyper-parameters; or one by name.
      learn: names of entries to learn; by default all that hold floating-point arrays
        and follow no schedule, but not "eps" and "eps_root", which guard the others.
      bounds: `{name: (lower, upper)}`, to which entries are clipped after every move.
        Entries with a name of `domains.DOMAIN` (b1, weight_decay, ...) stay in that
        domain by default, others are free.
      warmup: updates before the first move.
      normalize: divide h by |G| and by the norm of its own derivative of the update:
        a cosine in [-1, 1]. Scalar entries only.
      coordinates: `{name: "logit" | "log1m" | "log" | "identity"}`: where to descend.
      filter_decay: decay of a (bias-corrected) moving average of h; 0 for none.
      spike: do not move when the loss, then a required extra argument `value`, exceeds
        its moving average (decay 0.9) by more than `spike - 1` times its magnitude.

    Returns:
      A gradient transformation with state `HypergradientState`. Extra arguments reach
      `inner` in its step, but not when that step is differentiated.

    Raises:
      ValueError: for an option outside of what is allowed; at `init`, if there is not
        one field `hyperparams`, if `learn`, `bounds`, `coordinates` or
        `hyper_optimizer` name what is not in it, or if a learned entry follows a
        schedule; at `update`, for `params=None`.

    Examples:
      >>> import jax.numpy as jnp, mada_optax, optax
      >>> adamw = optax.inject_hyperparams(optax.adamw)(1e-2, eps_root=1e-16)
      >>> tx = mada_optax.hypergradient(adamw, optax.sgd(1e-3), learn=["learning_rate"])
      >>> params = {"w": jnp.array([1.0, -2.0])}
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     grads = params
      ...     updates, state = tx.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(state.hyperparams["learning_rate"] > 1e-2)
      True

    References:
      Baydin et al., `Online Learning Rate Adaptation with Hypergradient Descent
      <https://arxiv.org/abs/1703.04782>`_, ICLR 2018.
    """
    rule = _Hypergradient(
        optax.with_extra_args_support(inner),
        hyper_optimizer,
        learn,
        bounds,
        warmup,
        normalize,
        dict(coordinates or {}),
        filter_decay,
        spike,
    )
    return optax.GradientTransformationExtraArgs(rule.init, rule.update)
