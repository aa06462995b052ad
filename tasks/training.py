"""One compiled program that trains an optimizer on a task, all seeds side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.compiling import for_few_calls
from tasks.data.prefetch import prefetch
from tasks.placement import Placement

# Bytes of streamed batches on their way at a time; the host gathers the next ones while
# the device trains on these.
STREAM_BYTES = 64 * 2**20


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
      valid: metrics at the end of the chunk, each float32[seeds]; see `evaluations`.
      hyperparams: scalar hyper-parameters at the end of the chunk, float32[seeds].
    """

    train_loss: jax.Array
    valid: dict[str, jax.Array]
    hyperparams: dict[str, jax.Array]


class Program:
    """Trains `task` with `transformation`, compiled once for a number of seeds.

    The initial parameters, the batch of step t and its noise depend on the seed and on
    t alone, so that two programs of one task see the same data: seeds are paired.

    Where the optimizer makes meta-updates, see `training_step`, their validation
    batches are of the split `"meta"`, and of `"valid"` if the task has no such split:
    what is measured there is then no longer unseen.

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
        placement: Placement | None = None,
    ):
        placement = placement or Placement()
        named = ("train", "valid", "meta", *task.also_evaluated)
        used = [k for k in named if k in task.data]
        self._splits = placement.replicate({k: task.data[k] for k in used})
        self.num_seeds = len(seeds)
        self._batches = _Batches(task, seeds, chunk_size, placement)
        begin = jax.vmap(initial_carry(task, transformation))
        carry = placement.of_carry(jax.eval_shape(begin, _keys(seeds)))
        self._begin = jax.jit(
            begin, out_shardings=carry, compiler_options=for_few_calls()
        )
        self.restart(seeds)
        run = jax.vmap(
            _advance(task, transformation, self._batches.length, placement),
            in_axes=(0, None, 0, None, None, None),
        )
        began = time.perf_counter()
        self._run: Any = (
            jax.jit(run, donate_argnums=0, out_shardings=(carry, None))
            .lower(self._carry, self._splits, *self._batches.of_steps(0, 0), True)
            .compile()
        )
        self.compile_seconds = time.perf_counter() - began

    def restart(self, seeds: tuple[int, ...]) -> None:
        """Goes back to the start, with as many seeds, which may be others."""
        self._batches.seeds = seeds
        self._carry = self._begin(_keys(seeds))

    def advance(self, start: int, stop: int) -> Chunk:
        """Runs steps `start` to `stop`, at most `chunk_size` of them, and evaluates."""
        losses = []
        for batches, first, last in self._batches.between(start, stop):
            self._carry, chunk = self._run(
                self._carry,
                self._splits,
                *(batches, first, last),
                last == stop,
            )
            losses.append(chunk.train_loss)
            # Dispatch is asynchronous: at most two parts of a stream are on their way.
            jax.block_until_ready(losses[-2:-1])
        chunk = jax.device_get(chunk._replace(train_loss=losses))
        return chunk._replace(train_loss=np.concatenate(chunk.train_loss, axis=1))


def _keys(seeds: Sequence[int]) -> jax.Array:
    return jnp.stack([jax.random.key(seed) for seed in seeds])


class _Batches:
    """The streamed batches of a task by steps, or nothing for one that samples."""

    def __init__(
        self, task: Task, seeds: Sequence[int], chunk_size: int, placement: Placement
    ):
        self._stream, self.seeds, self._put = task.stream, seeds, placement.put_batches
        self.length = chunk_size
        if self._stream is not None:
            step = sum(x.nbytes for x in jax.tree.leaves(self._stream(seeds[0], 0, 1)))
            fitting = STREAM_BYTES // (step * len(seeds))
            self.length = max(1, min(chunk_size, fitting))

    def between(self, start: int, stop: int) -> Iterator[tuple[Any, Any, Any]]:
        """Batches and the bounds of their steps, for all steps in turn."""
        bounds = [*range(start, stop, self.length), stop]
        parts = list(itertools.pairwise(bounds)) or [(start, stop)]
        gathered = (self.of_steps(*part) for part in parts)
        return gathered if self._stream is None else prefetch(gathered)

    def of_steps(self, start: int, stop: int) -> tuple[Any, jax.Array, jax.Array]:
        """Batches (seeds, length, ...), of which the first `stop - start` are used."""
        bounds = jnp.int32(start), jnp.int32(stop)
        if self._stream is None:
            return None, *bounds
        # Steps after the last one fill up the shape that the program is compiled for.
        each = [self._stream(seed, start, start + self.length) for seed in self.seeds]
        return self._put(jax.tree.map(lambda *x: np.stack(x), *each)), *bounds


def initial_carry(task: Task, transformation: Any) -> Callable[[jax.Array], Carry]:
    """`key -> carry` before the first step.

    An optimizer that starts at random has a method `init_with_key(key, params)`, so
    that seeds differ in its draw too. It is called instead of `init`.
    """

    def begin(key: jax.Array) -> Carry:
        init_key, run_key = jax.random.split(key)
        params, model_state = task.init(init_key)
        if hasattr(transformation, "init_with_key"):
            draw = jax.random.fold_in(key, 2)  # 0 and 1 are what `split` gave.
            opt_state = transformation.init_with_key(draw, params)
        else:
            opt_state = transformation.init(params)
        return Carry(params, model_state, opt_state, run_key)

    return begin


def training_step(
    task: Task, transformation: Any, placement: Placement | None = None
) -> Callable[..., tuple[Carry, jax.Array]]:
    """`(carry, data["train"], t, meta=None, batch=None) -> (carry, loss)`, step t.

    Without a batch, one is sampled.

    An optimizer that learns from losses of its own choice says so by two attributes.
    After every `meta_every`-th step, counted over the whole run,

        state, _ = transformation.meta_update(
            loss, params, state, grads, batch1, batch2, val_batch, key=key
        )

    is called with `loss(params, batch, key)`, parameters and state after the step, its
    gradient, two batches of the training data and one of `meta`. The model's state is a
    constant there, and what `loss` does to it is discarded. Equal keys, equal noise: to
    compare two losses, give them one. A step without such an update does not pay for
    it, as long as `t` has no axis of seeds.
    """
    meta_every = getattr(transformation, "meta_every", 0)
    spread = (placement or Placement()).spread_batch

    def sample(data: Data, key: jax.Array) -> Batch:
        return spread(task.sample(data, key))

    def step(
        carry: Carry,
        train: Data,
        t: jax.Array,
        meta: Data | None = None,
        batch: Batch | None = None,
    ) -> tuple[Carry, jax.Array]:
        step_key = jax.random.fold_in(carry.key, t)
        batch_key, noise_key = jax.random.split(step_key)
        batch = sample(train, batch_key) if batch is None else spread(batch)
        (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
            carry.params, carry.model_state, batch, noise_key
        )
        updates, opt_state = transformation.update(
            grads, carry.opt_state, carry.params, value=loss
        )
        params = optax.apply_updates(carry.params, updates)
        carry = Carry(params, model_state, opt_state, carry.key)
        if not meta_every:
            return carry, loss
        if meta is None:
            raise ValueError(
                f"the optimizer makes meta-updates (meta_every={meta_every}), which "
                "need data: pass meta=... to the training step"
            )
        key = jax.random.fold_in(step_key, 2)  # 0 and 1 are what `split` gave.
        opt_state = jax.lax.cond(
            (t + 1) % meta_every == 0,
            lambda: meta_updated(carry, grads, (train, train, meta), key),
            lambda: carry.opt_state,
        )
        return carry._replace(opt_state=opt_state), loss

    def meta_updated(
        carry: Carry, grads: Params, data: tuple[Data, ...], key: jax.Array
    ) -> optax.OptState:
        def loss(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
            return task.loss(params, carry.model_state, batch, key)[0]

        *keys, noise_key = jax.random.split(key, len(data) + 1)
        batches = map(sample, data, keys)
        opt_state, _ = transformation.meta_update(
            loss, carry.params, carry.opt_state, grads, *batches, key=noise_key
        )
        return opt_state

    return step


def _advance(task, transformation, chunk_size, placement):
    step = training_step(task, transformation, placement)

    def advance(carry, splits, batches, start, stop, evaluates):
        meta = splits.get("meta", splits["valid"])

        # The bounds are traced, where a scan has a fixed length: one program serves a
        # shorter last chunk too and, with no step at all, the evaluation at the start.
        def body(t, carry_and_losses):
            carry, losses = carry_and_losses
            batch = jax.tree.map(lambda x: x[t - start], batches)
            carry, loss = step(carry, splits["train"], t, meta, batch)
            return carry, losses.at[t - start].set(loss.astype(jnp.float32))

        def evaluate():
            return evaluations(task, carry.params, carry.model_state, splits)

        losses = jnp.full(chunk_size, jnp.nan, jnp.float32)
        carry, losses = jax.lax.fori_loop(start, stop, body, (carry, losses))
        if task.stream is None:
            valid = evaluate()
        else:
            nothing = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(evaluate)
            )
            valid = jax.lax.cond(evaluates, evaluate, lambda: nothing)
        return carry, Chunk(losses, valid, scalar_hyperparams(carry.opt_state))

    return advance


def evaluations(
    task: Task, params: Params, model_state: ModelState, data: Data
) -> dict[str, jax.Array]:
    """Metrics on the validation split, and as `METRIC/NAME` on each further set."""
    found = task.evaluate(params, model_state, data["valid"])
    for name in task.also_evaluated:
        metrics = task.evaluate(params, model_state, data[name])
        found = found | {f"{metric}/{name}": value for metric, value in metrics.items()}
    return found


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
