"""One step of the attention itself: a virtual step, its objective, its gradient."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mada_optax.meta_adamw import objectives, step
from mada_optax.meta_adamw.attention import Factors
from mada_optax.meta_adamw.features import Leaf
from mada_optax.meta_adamw.objectives import Terms
from mada_optax.meta_adamw.options import Options
from mada_optax.meta_adamw.transform import MetaAdamWState, Rule

LossFn = Callable[..., jax.Array]


class MetaAux(NamedTuple):
    """What a meta update saw, to log.

    Attributes:
      total: the objective with its regularizers, scalar.
      terms: its terms, scalars, `None` for those that it does not need.
      factors: of the virtual step, (G,) each, groups sorted by label.
      gradient: of the total, a tree like `hyperparams`.
      gradient_norm: of all of it, before `meta_clip`, scalar.
      ok: whether the step was taken: all was finite, and there was an update before.
    """

    total: jax.Array
    terms: Terms
    factors: Factors
    gradient: Any
    gradient_norm: jax.Array
    ok: jax.Array


def _is_state(node: Any) -> bool:
    return isinstance(node, MetaAdamWState)


def locate(state: Any) -> tuple[MetaAdamWState, Callable[[MetaAdamWState], Any]]:
    """The one `MetaAdamWState` in a state, and what puts another in its place.

    Raises:
      ValueError: there is none, or there are several.
    """
    leaves, treedef = jax.tree.flatten(state, is_leaf=_is_state)
    places = [i for i, leaf in enumerate(leaves) if _is_state(leaf)]
    if len(places) != 1:
        raise ValueError(
            f"state must hold one MetaAdamWState, got {len(places)}: pass the state of "
            "meta_adamw, or of a chain with one in it."
        )
    (place,) = places

    def put(new):
        return treedef.unflatten([*leaves[:place], new, *leaves[place + 1 :]])

    return leaves[place], put


class Trained:
    """The leaves that a state has moments for, found by key path; others are constants.

    Attributes:
      mu: first moments.
      nu: second moments.
    """

    def __init__(self, state: MetaAdamWState):
        self.mu, self._treedef = jax.tree.flatten(state.mu)
        self.nu = jax.tree.leaves(state.nu)
        self._paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(state.mu)]

    def take(self, name: str, tree: Any) -> list[jax.Array]:
        """These leaves of another tree, in which there may be more."""
        table = dict(jax.tree_util.tree_leaves_with_path(tree))
        for path in self._paths:
            if path not in table:
                raise ValueError(
                    f"{name} has no leaf {jax.tree_util.keystr(path)}, for which the "
                    "state has moments."
                )
        return [table[path] for path in self._paths]

    def put(self, tree: Any, leaves: Sequence[jax.Array]) -> Any:
        """The tree with these leaves."""
        new = dict(zip(self._paths, leaves, strict=True))
        return jax.tree_util.tree_map_with_path(lambda p, x: new.get(p, x), tree)

    def tree(self, leaves: Sequence[jax.Array]) -> Any:
        """These leaves alone, in the structure that `update` saw."""
        return self._treedef.unflatten(leaves)


def virtual_step(
    rule: Rule,
    hyperparams: Any,
    trained: Trained,
    count: jax.Array,
    params: Sequence[jax.Array],
    grads: Sequence[jax.Array],
    batch_grads: Sequence[jax.Array] | None,
) -> tuple[list[jax.Array], Factors]:
    """The leaves after a step that is not taken; only `hyperparams` is variable.

    `grads` are for the features; where the options say so, the moments first advance
    by `batch_grads`.
    """
    options = rule.options
    leaves = [
        Leaf(*jax.lax.stop_gradient((jnp.asarray(g, mu.dtype), mu, nu, p)))
        for g, mu, nu, p in zip(grads, trained.mu, trained.nu, params, strict=True)
    ]
    tree = trained.tree(params)
    groups, count = rule.layout(tree), jnp.maximum(count, 1)
    factors = rule.factors(hyperparams, leaves, groups, count)
    applied = factors
    if not options.beta_gradient:
        applied = factors._replace(beta=jax.lax.stop_gradient(factors.beta))
    advances = options.virtual_step == "advance"
    numbers = rule.numbers(tree, groups, applied, count + advances, count - 1)
    moved = []
    fresh = batch_grads if advances and batch_grads is not None else grads
    for leaf, grad, s in zip(leaves, fresh, numbers, strict=True):
        mu, nu = leaf.mu, leaf.nu
        if advances:
            grad = jax.lax.stop_gradient(jnp.asarray(grad, mu.dtype))
            mu, nu = step.advance(mu, nu, grad, s)
        change = step.change(mu, nu, leaf.param, s)
        moved.append(leaf.param + change.astype(jnp.result_type(leaf.param)))
    return moved, factors


class Batches(NamedTuple):
    """Two training batches, and one or two for validation."""

    first: Any
    second: Any
    val: Any = None
    gap: Any = None


class Keys(NamedTuple):
    """Random keys of the losses, or `None`: `before` and `val` may be the same."""

    first: Any
    second: Any
    val: Any
    before: Any
    gap: Any

    @classmethod
    def split(cls, key: Any, *, paired: bool) -> "Keys":
        """Five keys, or four of which `before` and `val` share one."""
        keys = cls(*([None] * 5 if key is None else jax.random.split(key, 5)))
        return keys._replace(before=keys.val) if paired else keys


def _check(options: Options, grads: Any, batches: Batches) -> None:
    asked = Terms.needed(options)
    if batches.val is None and (asked.loss_decrease or asked.gen_gap):
        raise ValueError(
            f"meta_objective={options.meta_objective!r} needs val_batch, got None."
        )
    if grads is None and options.meta_feature_grad == "last_step":
        raise ValueError(
            "meta_update needs grads, the gradient of the last update: pass it, or "
            'choose meta_feature_grad="batch1".'
        )


def meta_gradient(
    rule: Rule,
    loss_fn: LossFn,
    params: Any,
    inner: MetaAdamWState,
    grads: Any,
    batches: Batches,
    key: jax.Array | None,
) -> tuple[jax.Array, Terms, Factors, Any]:
    """Total, its terms, the factors, and the gradient by `hyperparams`."""
    options, asked, trained = rule.options, Terms.needed(rule.options), Trained(inner)
    keys = Keys.split(key, paired=options.paired_rng)
    here = trained.take("params", params)
    groups = rule.layout(trained.tree(here))

    def loss(leaves, batch, key):
        extra = () if key is None else (key,)
        return loss_fn(trained.put(params, leaves), batch, *extra)

    loss1, g1 = jax.value_and_grad(loss)(here, batches.first, keys.first)
    last = g1
    if options.meta_feature_grad == "last_step":
        last = trained.take("grads", grads)
    before: Any = None if batches.val is None else loss(here, batches.val, keys.before)

    def gap(leaves, first):
        """Of the losses on the first batch, `first`, and on the one for the gap."""
        if batches.gap is None:
            at = before if leaves is here else loss(leaves, batches.val, keys.before)
        else:
            at = loss(leaves, batches.gap, keys.gap)
        return jnp.abs(first - at)

    def objective(hyperparams):
        ahead, factors = virtual_step(
            rule, hyperparams, trained, inner.count, here, last, g1
        )
        terms = {}
        if asked.gradient:
            g2 = jax.grad(loss)(ahead, batches.second, keys.second)
            terms["gradient"] = objectives.gradient_alignment(g1, g2, factors, groups)
        if asked.loss_decrease:
            terms["loss_decrease"] = loss(ahead, batches.val, keys.val) - before
        if asked.gen_gap and options.gap_at == "theta":
            terms["gen_gap"] = gap(here, loss1)
        elif asked.gen_gap:
            terms["gen_gap"] = gap(ahead, loss(ahead, batches.first, keys.first))
        dtype = factors.alpha.dtype
        terms = Terms(**{name: jnp.asarray(x, dtype) for name, x in terms.items()})
        total = objectives.combine(terms, hyperparams.get("log_vars"), options)
        total += objectives.regularizers(hyperparams, options)
        return total, (terms, factors)

    (total, (terms, factors)), gradient = jax.value_and_grad(objective, has_aux=True)(
        inner.hyperparams
    )
    return total, terms, factors, gradient


def descend(rule: Rule, inner: MetaAdamWState, gradient: Any) -> tuple[Any, Any]:
    """New `hyperparams` and state of the meta-optimizer."""
    options, old = rule.options, inner.hyperparams
    frozen = {"gates"} if not options.train_gates else set()
    gradient = {
        name: jax.tree.map(jnp.zeros_like, x) if name in frozen else x
        for name, x in gradient.items()
    }
    # A list, so that the names in it occur in the state once.
    leaves, treedef = jax.tree.flatten(old)
    changes, state = rule.meta_optimizer.update(
        jax.tree.leaves(gradient), inner.meta_optimizer, leaves
    )
    new = treedef.unflatten(optax.apply_updates(leaves, changes))
    new |= {name: old[name] for name in frozen & old.keys()}
    if "log_vars" in new:
        new["log_vars"] = jnp.clip(new["log_vars"], *options.huw_log_var_bounds)
    return new, optax.tree.cast_like(state, inner.meta_optimizer)


def meta_update(
    rule: Rule,
    loss_fn: LossFn,
    params: Any,
    state: Any,
    grads: Any,
    batches: Batches,
    key: jax.Array | None,
) -> tuple[Any, MetaAux]:
    """One step of the meta-optimizer; `MetaAdamW.meta_update` documents it."""
    _check(rule.options, grads, batches)
    inner, put = locate(state)
    total, terms, factors, gradient = meta_gradient(
        rule, loss_fn, params, inner, grads, batches, key
    )
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(total)
    ok = finite & (inner.count > 0)
    old = inner.hyperparams, inner.meta_optimizer
    hyperparams, optimizer = jax.tree.map(
        lambda x, y: jnp.where(ok, x, y), descend(rule, inner, gradient), old
    )
    new = inner._replace(
        hyperparams=hyperparams,
        meta_optimizer=optimizer,
        skipped=inner.skipped + ~finite,
    )
    return put(new), MetaAux(total, terms, factors, gradient, norm, ok)
