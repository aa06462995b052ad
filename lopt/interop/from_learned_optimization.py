"""Tasks, optimizers and meta-parameters of `learned_optimization`, used here."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt import tree_checks
from lopt.base import Theta
from lopt.checks import check_counts
from lopt.interop import names
from tasks.base import Task

_SPLITS = {
    "train": "train",
    "meta": "inner_valid",
    "valid": "outer_valid",
    "test": "test",
}


def task(theirs: Any, *, num_batches: int = 64, name: str | None = None) -> Task:
    """A `learned_optimization.tasks.base.Task` as a `tasks.Task`.

    Their data sets are endless iterators on the host, ours arrays on the device. So
    `num_batches` batches of each split are drawn at once; training takes one of them
    at random, evaluation the mean over all.

    Args:
      theirs: the task; of a family, one that was sampled from it.
      num_batches: batches of each split, kept on the device.
      name: in records; by default `theirs.name`.

    Returns:
      A task with the splits "train", "meta" (their inner_valid), "valid" (their
      outer_valid) and "test", all empty if it has no data sets. `evaluate` gives the
      loss and the scalars of `loss_with_state_and_aux`, with one fixed key: their
      tasks know no evaluation mode.

    Raises:
      ValueError: `theirs` is a family, or `num_batches` no positive integer.
    """
    check_counts(num_batches=num_batches)
    if hasattr(theirs, "task_fn"):
        raise ValueError(
            f"theirs={theirs.name} is a family of tasks: sample one, "
            "theirs.sample_task(key)."
        )

    def init(key):
        params, state = theirs.init_with_state(_legacy(key))
        return params, () if state is None else state

    def loss(params, model_state, batch, key):
        state = _none_if_empty(model_state)
        value, state = theirs.loss_with_state(params, state, _legacy(key), batch)
        return value, () if state is None else state

    def sample(data, key):
        def one(batches):
            return batches[jax.random.randint(key, (), 0, len(batches))]

        return jax.tree.map(one, data)

    def evaluate(params, model_state, data):
        def metrics(batch):
            loss, _, aux = theirs.loss_with_state_and_aux(
                params, _none_if_empty(model_state), jax.random.PRNGKey(0), batch
            )
            scalars = {k: v for k, v in aux.items() if not jnp.ndim(v)}
            return jax.tree.map(jnp.float32, {**scalars, "loss": loss})

        if not jax.tree.leaves(data):
            return metrics(data)
        return jax.tree.map(jnp.mean, jax.lax.map(metrics, data))

    return Task(
        name=name or theirs.name,
        init=init,
        loss=loss,
        sample=sample,
        evaluate=evaluate,
        data={
            ours: _drawn(theirs.datasets, split, num_batches)
            for ours, split in _SPLITS.items()
        },
        normalize=theirs.normalizer,
        metadata={"source": "learned_optimization", "num_batches": num_batches},
    )


def _drawn(datasets, split, number):
    """Batches of a split, along a first axis."""
    if datasets is None:
        return ()
    batches = itertools.islice(datasets.split(split), number)
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *batches)


def _none_if_empty(model_state):
    """Their word for no model state, in place of ours."""
    return None if isinstance(model_state, tuple) and not model_state else model_state


def _legacy(key):
    """A key as their code knows it, an array of uint32."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(key) if typed else key


class BorrowedState(NamedTuple):
    """State of a transformation made of one of their optimizers.

    Attributes:
      inner: their state, without the parameters and the model's state.
      key: from which the optimizer draws, uint32 (2,).
    """

    inner: Any
    key: jax.Array


def optimizer(
    theirs: Any,
    *,
    num_steps: int | None = None,
    model_state: Any = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """A `learned_optimization.optimizers.base.Optimizer` as an Optax transformation.

    Updates are what parameters become by their update, less what they were: exact to
    the rounding of the parameters.

    Args:
      theirs: the optimizer.
      num_steps: the length of training, for those that need it.
      model_state: what it gets for the state of the model, where `update` is called
        without `model_state=`; some forks look there for learning rates of muP.
      seed: of the random numbers that it may draw, where `update` is called without
        `key=`.

    Returns:
      A transformation with state `BorrowedState`. `update` takes `value=loss`,
      `model_state=` and `key=`, and ignores what else it is called with.

    Raises:
      ValueError: `theirs` is a learned optimizer; at `update`, for no parameters.

    Examples:
      >>> with compatibility():  # doctest: +SKIP
      ...     from learned_optimization.optimizers import base
      >>> optax.chain(optax.clip(1.0), optimizer(base.Adam()))  # doctest: +SKIP
    """
    if hasattr(theirs, "opt_fn"):
        raise ValueError(
            f"theirs={theirs} is a learned optimizer: use "
            "from_learned_optimization.learned_optimizer(theirs).transform(theta)."
        )
    default_state = model_state

    def init(params):
        key, init_key = jax.random.split(jax.random.PRNGKey(seed))
        inner = theirs.init(params, model_state, num_steps=num_steps, key=init_key)
        return BorrowedState(jax.tree.map(_strong, _with(inner, None, None)), key)

    def update(
        updates, state, params=None, *, value=None, model_state=None, key=None, **_
    ):
        tree_checks.given(params)
        model_state = default_state if model_state is None else model_state
        next_key, own_key = jax.random.split(state.key)
        before = _with(state.inner, params, model_state)
        try:
            after = theirs.update(
                before,
                updates,
                loss=value,
                model_state=model_state,
                key=own_key if key is None else _legacy(key),
            )
        except Exception as error:
            if value is None:
                error.add_note("It may need the loss: call update(..., value=loss).")
            raise
        updates = jax.tree.map(
            lambda new, old: (new - old).astype(jnp.result_type(old)),
            theirs.get_params(after),
            params,
        )
        inner = jax.tree.map(
            lambda new, old: jnp.asarray(new, old.dtype),
            _with(after, None, None),
            state.inner,
        )
        return updates, BorrowedState(inner, next_key)

    return optax.GradientTransformationExtraArgs(init, update)


class BorrowedLearnedState(NamedTuple):
    """State of a transformation made of one of their learned optimizers.

    Attributes:
      hyperparams: theta, under our names.
      inner: `BorrowedState` of the optimizer which theta makes.
    """

    hyperparams: Theta
    inner: optax.OptState


@dataclasses.dataclass(frozen=True, eq=False)
class BorrowedOptimizer:
    """One of their learned optimizers as a `lopt.LearnedOptimizer`.

    Attributes:
      theirs: a `learned_optimization.learned_optimizers.base.LearnedOptimizer`.
      num_steps: see `optimizer`.
      model_state: see `optimizer`.
      seed: see `optimizer`.

    Raises:
      ValueError: `theirs` is no learned optimizer.
    """

    theirs: Any
    _: dataclasses.KW_ONLY
    num_steps: int | None = None
    model_state: Any = None
    seed: int = 0

    def __post_init__(self):
        if not hasattr(self.theirs, "opt_fn"):
            raise ValueError(
                f"theirs={self.theirs} is no learned optimizer: for an Optimizer, use "
                "from_learned_optimization.optimizer(theirs)."
            )

    @functools.cached_property
    def _shapes(self):
        return jax.eval_shape(self.theirs.init, jax.random.PRNGKey(0))

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters, a nested dict of float32 arrays; see `theta`."""
        return names.ours(self.theirs.init(_legacy(key)))

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        Args:
          theta: meta-parameters, under our names or theirs.
          width_multipliers: a tree like the parameters, or a prefix of one, of positive
            numbers that updates are divided by; `None` for 1 throughout.

        Returns:
          A transformation with state `BorrowedLearnedState`; its `update` is that of
          `optimizer`.

        Raises:
          ValueError: `theta` belongs to another optimizer; at `update`, for no
            parameters or some that `width_multipliers` does not cover.
        """
        theta = names.ours(theta)
        names.theirs(theta, self._shapes)
        tree_checks.multipliers(width_multipliers)

        def init(params):
            inner = self._optimizer(theta).init(params)
            return BorrowedLearnedState(theta, inner)

        def update(updates, state, params=None, **extra_args):
            made = self._optimizer(state.hyperparams)
            updates, inner = made.update(updates, state.inner, params, **extra_args)
            updates = _divided(updates, params, width_multipliers)
            return updates, BorrowedLearnedState(state.hyperparams, inner)

        return optax.GradientTransformationExtraArgs(init, update)

    def _optimizer(self, theta):
        return optimizer(
            self.theirs.opt_fn(names.theirs(theta, self._shapes)),
            num_steps=self.num_steps,
            model_state=self.model_state,
            seed=self.seed,
        )


learned_optimizer = BorrowedOptimizer
theta = names.ours


def _divided(updates, params, width_multipliers):
    if width_multipliers is None:
        return updates
    leaves, treedef = jax.tree.flatten(updates)
    widths = tree_checks.multipliers_of(params, width_multipliers)
    pairs = zip(leaves, widths, strict=True)
    return treedef.unflatten([(x / width).astype(x.dtype) for x, width in pairs])


def _with(opt_state, params, model_state):
    """Their state, a named tuple or a dataclass, with these in place of its own."""
    fields = {"params": params, "state": model_state}
    if hasattr(opt_state, "_replace"):
        return opt_state._replace(**fields)
    return dataclasses.replace(opt_state, **fields)


def _strong(leaf):
    """An array whose dtype no other operand can change."""
    return jnp.asarray(leaf, jnp.result_type(leaf))
