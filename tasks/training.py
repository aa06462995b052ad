"""One compiled program that trains an optimizer on a task, all seeds side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tasks.base import Data, ModelState, Params, Task


class Carry(NamedTuple):
    """What one seed carries from step to step."""

    params: Params
    model_state: ModelState
    opt_state: optax.OptState
    key: jax.Array


class Chunk(NamedTuple):
    """What is measured in one chunk of steps; every leaf has a leading axis of seeds.

    Attributes:
      train_loss: float32[seeds, chunk_size], NaN after the steps that were run.
      valid: metrics at the end of the chunk, each float32[seeds].
      hyperparams: scalar hyper-parameters at the end of the chunk, float32[seeds].
    """

    train_loss: jax.Array
    valid: dict[str, jax.Array]
    hyperparams: dict[str, jax.Array]


class Program:
    """Trains `task` with `transformation`, compiled once for a number of seeds.

    The initial parameters, the batch of step t and its noise depend on the seed and on
    t alone, so that two programs of one task see the same data: seeds are paired.

    Example:
      >>> program = Program(task, optax.sgd(0.1), seeds=(0, 1), chunk_size=10)
      ... # doctest: +SKIP
      >>> before = program.advance(0, 0)  # doctest: +SKIP
      >>> after = program.advance(0, 10)  # doctest: +SKIP
    """

    def __init__(
        self,
        task: Task,
        transformation: optax.GradientTransformationExtraArgs,
        seeds: tuple[int, ...],
        chunk_size: int,
    ):
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        self._splits = {k: jax.device_put(task.data[k]) for k in ("train", "valid")}
        self._carry = jax.jit(jax.vmap(initial_carry(task, transformation)))(keys)
        run = jax.vmap(
            _advance(task, transformation, chunk_size), in_axes=(0, None, None, None)
        )
        began = time.perf_counter()
        self._run: Any = (
            jax.jit(run, donate_argnums=0)
            .lower(self._carry, self._splits, jnp.int32(0), jnp.int32(0))
            .compile()
        )
        self.compile_seconds = time.perf_counter() - began

    def advance(self, start: int, stop: int) -> Chunk:
        """Runs steps `start` to `stop`, at most `chunk_size` of them, and evaluates."""
        self._carry, chunk = self._run(
            self._carry, self._splits, jnp.int32(start), jnp.int32(stop)
        )
        return jax.device_get(chunk)


def initial_carry(
    task: Task, transformation: optax.GradientTransformationExtraArgs
) -> Callable[[jax.Array], Carry]:
    """`key -> carry` before the first step."""

    def begin(key: jax.Array) -> Carry:
        init_key, run_key = jax.random.split(key)
        params, model_state = task.init(init_key)
        return Carry(params, model_state, transformation.init(params), run_key)

    return begin


def training_step(
    task: Task, transformation: optax.GradientTransformationExtraArgs
) -> Callable[[Carry, Data, jax.Array], tuple[Carry, jax.Array]]:
    """`(carry, data["train"], t) -> (carry, loss)`, step t of a training run."""

    def step(carry: Carry, train: Data, t: jax.Array) -> tuple[Carry, jax.Array]:
        batch_key, noise_key = jax.random.split(jax.random.fold_in(carry.key, t))
        batch = task.sample(train, batch_key)
        (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
            carry.params, carry.model_state, batch, noise_key
        )
        updates, opt_state = transformation.update(
            grads, carry.opt_state, carry.params, value=loss
        )
        params = optax.apply_updates(carry.params, updates)
        return Carry(params, model_state, opt_state, carry.key), loss

    return step


def _advance(task, transformation, chunk_size):
    step = training_step(task, transformation)

    def advance(carry, splits, start, stop):
        # The bounds are traced, where a scan has a fixed length: one program serves a
        # shorter last chunk too and, with no step at all, the evaluation at the start.
        def body(t, carry_and_losses):
            carry, losses = carry_and_losses
            carry, loss = step(carry, splits["train"], t)
            return carry, losses.at[t - start].set(loss.astype(jnp.float32))

        losses = jnp.full(chunk_size, jnp.nan, jnp.float32)
        carry, losses = jax.lax.fori_loop(start, stop, body, (carry, losses))
        valid = task.evaluate(carry.params, carry.model_state, splits["valid"])
        return carry, Chunk(losses, valid, scalar_hyperparams(carry.opt_state))

    return advance


def scalar_hyperparams(state: optax.OptState) -> dict[str, jax.Array]:
    """The scalars in every field `hyperparams` of an optimizer's state, by name.

    Names that occur more than once are numbered in the order of the state.

    Example:
      >>> import optax
      >>> state = optax.inject_hyperparams(optax.sgd)(0.5).init({})
      >>> {k: float(v) for k, v in scalar_hyperparams(state).items()}
      {'learning_rate': 0.5}
    """
    found = [
        (_last_name(path), leaf)
        for _, hyperparams in optax.tree.get_all_with_path(state, "hyperparams")
        for path, leaf in jax.tree_util.tree_leaves_with_path(hyperparams)
        if jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
    names = [name for name, _ in found]
    return {
        name if names.count(name) == 1 else f"{name}_{names[:i].count(name)}": leaf
        for i, (name, leaf) in enumerate(found)
    }


def _last_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path[-1:], simple=True) if path else "value"
