"""Our tasks, optimizers and meta-parameters, used by `learned_optimization`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt import door
from lopt.base import LearnedOptimizer, Theta
from lopt.interop import names
from lopt.interop.compatibility import load
from tasks.base import Task


def task(ours: Task, *, seed: int = 0) -> Any:
    """A `tasks.Task` as a `learned_optimization.tasks.base.Task`.

    Args:
      ours: the task. It must have no model state where theirs is used without, by
        `init` and `loss`.
      seed: of the batches.

    Returns:
      A task of theirs. Its `datasets` are endless iterators over batches of NumPy
      arrays: `train`, `inner_valid` from our split "meta" or else "train",
      `outer_valid` from "valid", `test` from "test" or else "valid"; `None` if batches
      are empty. `extra_info` is our metadata, with `num_classes` where batches have an
      integer "label".

    Raises:
      ImportError: `learned_optimization` is not installed.
    """
    return _subclass(_Task, load("tasks.base").Task)(ours, seed)


def optimizer(ours: optax.GradientTransformation) -> Any:
    """An Optax transformation as a `learned_optimization.optimizers.base.Optimizer`.

    Unlike their own `OptaxOptimizer`, it hands on the loss, as `value=`.

    Raises:
      ImportError: `learned_optimization` is not installed.
    """
    return _subclass(_Optimizer, load("optimizers.base").Optimizer)(ours)


def learned_optimizer(ours: LearnedOptimizer, *, width_multipliers: Any = None) -> Any:
    """A `lopt.LearnedOptimizer` as one of `learned_optimization`.

    Its horizon, where it has one, is that of `ours`: `num_steps` of their `init` may be
    a traced number, and is not read.

    Args:
      ours: the architecture.
      width_multipliers: a tree like the parameters, or a prefix of one, of positive
        numbers that updates are divided by; `None` for 1 throughout.

    Returns:
      A `learned_optimization.learned_optimizers.base.LearnedOptimizer`, whose
      meta-parameters have our structure.

    Raises:
      ImportError: `learned_optimization` is not installed.
    """
    base = load("learned_optimizers.base").LearnedOptimizer
    return _subclass(_LearnedOptimizer, base)(ours, width_multipliers)


def theta(ours: Theta, theirs: Any) -> Any:
    """Meta-parameters under the names of one of their learned optimizers.

    Args:
      ours: a nested dict of arrays.
      theirs: the learned optimizer.

    Returns:
      What `theirs.init` returns, with the numbers of `ours`.

    Raises:
      ValueError: `ours` belongs to another architecture.
    """
    return names.theirs(ours, jax.eval_shape(theirs.init, jax.random.PRNGKey(0)))


def _subclass(ours: type, theirs: type) -> type:
    """A class of theirs, that they may ask for, which does as ours."""
    return type(ours.__name__.strip("_"), (ours, theirs), {})


class _Task:
    def __init__(self, ours: Task, seed: int):
        self.ours = ours
        key = jax.random.key(seed)
        _, self.model_state = jax.eval_shape(ours.init, key)
        self.batch = jax.eval_shape(ours.sample, ours.data["train"], key)
        self.datasets = _datasets(ours, self.batch, seed)

    @property
    def name(self):
        return self.ours.name

    def init_with_state(self, key):
        return self.ours.init(_typed(key))

    def init(self, key):
        self._check_stateless()
        return self.init_with_state(key)[0]

    def loss_with_state(self, params, state, key, data):
        # They have one empty batch, which need not be of our structure.
        data = self.batch if self.datasets is None else data
        return self.ours.loss(params, state, data, _typed(key))

    def loss_with_state_and_aux(self, params, state, key, data):
        return *self.loss_with_state(params, state, key, data), {}

    def loss(self, params, key, data):
        self._check_stateless()
        return self.loss_with_state(params, self.model_state, key, data)[0]

    def loss_and_aux(self, params, key, data):
        return self.loss(params, key, data), {}

    def normalizer(self, loss):
        return self.ours.normalize(loss)

    def _check_stateless(self):
        if jax.tree.leaves(self.model_state):
            raise ValueError(
                f"the model of task {self.name!r} has a state: use init_with_state and "
                "loss_with_state."
            )


def _datasets(ours, batch, seed):
    if not jax.tree.leaves(batch):
        return None
    base = load("tasks.datasets.base")
    sample = jax.jit(ours.sample)

    def batches(data, key):
        for step in itertools.count():
            yield jax.device_get(sample(data, jax.random.fold_in(key, step)))

    def stream():
        for step in itertools.count():
            yield jax.tree.map(lambda x: x[0], ours.stream(seed, step, step + 1))

    train, valid = ours.data["train"], ours.data["valid"]
    held_out = (ours.data.get("meta", train), valid, ours.data.get("test", valid))
    keys = jax.random.split(jax.random.key(seed), 4)
    iterators = [
        batches(train, keys[0]) if ours.stream is None else stream(),
        *map(batches, held_out, keys[1:]),
    ]
    return base.Datasets(
        *map(base.ThreadSafeIterator, iterators),
        extra_info={**_num_classes(train), **ours.metadata},
        abstract_batch=batch,
    )


def _num_classes(data):
    """Counted, where there are labels."""
    label = data.get("label") if isinstance(data, Mapping) else None
    if label is None or not jnp.issubdtype(label.dtype, jnp.integer):
        return {}
    return {"num_classes": int(np.max(label)) + 1}


@flax.struct.dataclass
class LentState:
    """State of an Optax transformation inside `learned_optimization`.

    Attributes:
      params: the parameters.
      state: the model's state.
      opt_state: the transformation's.
    """

    params: Any
    state: Any
    opt_state: optax.OptState


class _Optimizer:
    def __init__(self, ours: optax.GradientTransformation, theta: Theta | None = None):
        self.ours = optax.with_extra_args_support(ours)
        self.theta = theta

    def init(self, params, model_state=None, num_steps=None, key=None, **_):
        del num_steps, key
        return LentState(params, model_state, self.ours.init(params))

    def set_params(self, state, params):
        return state.replace(params=params)

    def update(self, opt_state, grad, loss=None, model_state=None, **_):
        inner, params = opt_state.opt_state, opt_state.params
        if self.theta is not None:  # It may have changed since `init`.
            inner = door.put(inner, door.fill(door.get(inner), self.theta))
        updates, inner = self.ours.update(grad, inner, params, value=loss)
        return LentState(optax.apply_updates(params, updates), model_state, inner)


class _LearnedOptimizer:
    def __init__(self, ours: LearnedOptimizer, width_multipliers: Any):
        self.ours = ours
        self.width_multipliers = width_multipliers

    def init(self, key):
        return self.ours.init(_typed(key))

    def opt_fn(self, theta, is_training=False):
        del is_training
        made = self.ours.transform(theta, width_multipliers=self.width_multipliers)
        base = load("optimizers.base").Optimizer
        return _subclass(_Optimizer, base)(made, theta)


def _typed(key):
    """A key as our code knows it."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if typed else jax.random.wrap_key_data(key)
