"""The inner training runs that meta-training looks at, many of them side by side."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt import door
from lopt.checks import check_positive
from lopt.keys import StepKeys, split_keys, step_keys
from lopt.truncation import Schedule, Ticks, first_length, tick
from tasks.base import ModelState, Params, Task

Theta = Any
Runs = tuple[Params, ModelState, optax.OptState]


class Particle(NamedTuple):
    """An inner training run; of many runs, each leaf has a leading axis of particles.

    The runs of one particle differ in theta only. The three trees have a second axis,
    of these copies (two in an antithetic pair); the clock is common to them.

    Attributes:
      params: what is trained.
      model_state: what else the model carries.
      opt_state: the state of the transformation.
      step: int32; steps made since the start of the run.
      length: int32; steps after which the run ends.
    """

    params: Params
    model_state: ModelState
    opt_state: optax.OptState
    step: jax.Array
    length: jax.Array

    @property
    def runs(self) -> Runs:
        """The particle without its clock."""
        return self.params, self.model_state, self.opt_state


class Trajectory(NamedTuple):
    """What the steps of a truncation report; the leading axis is that of steps.

    Attributes:
      loss: float32 (steps, particles, copies); meta-losses, 0 at a restart.
      finite: bool, of the same shape; whether the task's loss was finite.
      ticks: each (steps, particles).
    """

    loss: jax.Array
    finite: jax.Array
    ticks: Ticks

    @property
    def mask(self) -> jax.Array:
        """The steps that trained, bool (steps, particles)."""
        return ~self.ticks.restart


@dataclasses.dataclass(frozen=True, eq=False)
class Unroll:
    """What is trained, by what, and for how long.

    Attributes:
      task: the optimizee.
      transformation: an optimizer whose state has a field `hyperparams`.
      schedule: the lengths of the runs.
      to_hyperparams: maps theta to values for `hyperparams`: the whole of it, or a
        mapping from some of its names.
      meta_split: `None` takes as meta-loss the loss of each step, on its batch and
        before its update; the name of a split takes the loss after the update, on
        another batch, of that split.
      nonfinite_loss: stands in for a meta-loss that is not finite.
      max_loss: meta-losses above it count as it, or `None`.

    Raises:
      ValueError: an option is out of range, the loss is no scalar, or the
        transformation has no `hyperparams`. Nothing is compiled to find out.

    Example:
      >>> adam = optax.inject_hyperparams(optax.adam)(1e-3)  # doctest: +SKIP
      >>> unroll = Unroll(task, adam, LogUniform(100, 1000))  # doctest: +SKIP
    """

    task: Task
    transformation: optax.GradientTransformationExtraArgs
    schedule: Schedule
    to_hyperparams: Callable[[Theta], Any] = lambda theta: theta
    meta_split: str | None = None
    nonfinite_loss: float = 20.0
    max_loss: float | None = None

    def __post_init__(self):
        check_positive(nonfinite_loss=self.nonfinite_loss)
        if self.max_loss is not None:
            check_positive(max_loss=self.max_loss)
        for split in self.splits:
            if split not in self.task.data:
                raise ValueError(
                    f"the task {self.task.name!r} has no split {split!r}; it has "
                    f"{sorted(self.task.data)}"
                )
        if not hasattr(self.transformation, "update"):
            raise ValueError(
                "transformation must be an optax.GradientTransformation, got "
                f"{self.transformation!r}"
            )
        if not hasattr(self.schedule, "sample"):
            raise ValueError(
                "schedule must be a lopt.Constant or a lopt.LogUniform, got "
                f"{self.schedule!r}"
            )
        door.get(jax.eval_shape(self.transformation.init, self._shapes[0]))
        key = jax.random.key(0)
        batch = jax.eval_shape(self.task.sample, self.task.data["train"], key)
        loss, _ = jax.eval_shape(self.task.loss, *self._shapes, batch, key)
        if loss.shape != () or not _is_floating(loss):
            raise ValueError(
                f"the loss of the task {self.task.name!r} must be a floating-point "
                f"scalar, got {loss.dtype} of shape {loss.shape}"
            )

    @functools.cached_property
    def _shapes(self) -> tuple[Any, Any]:
        return jax.eval_shape(self.task.init, jax.random.key(0))

    @functools.cached_property
    def _moved(self) -> Any:
        return door.moved(self.transformation, self._shapes[0])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the task's data that the runs read."""
        return ("train",) if self.meta_split is None else ("train", self.meta_split)

    def check(self, theta: Theta) -> None:
        """Raises `ValueError` if theta does not fit the transformation."""
        leaves = jax.tree.leaves(theta)
        if not leaves or not all(map(_is_floating, leaves)):
            raise ValueError("theta must be a pytree of floating-point arrays")
        state = jax.eval_shape(self.transformation.init, self._shapes[0])
        values = jax.eval_shape(self.to_hyperparams, theta)
        jax.eval_shape(door.fill, door.get(state), values)

    def start(self, thetas: Theta, keys: jax.Array) -> Particle:
        """Starts runs, whose first lengths are staggered.

        Args:
          thetas: theta of each run, each leaf (particles, copies, ...).
          keys: random keys (particles,).
        """
        init_keys, clock_keys = split_keys(keys)
        length = jax.vmap(partial(first_length, self.schedule))(clock_keys)
        return Particle(*self._fresh(thetas, init_keys), jnp.zeros_like(length), length)

    def run(
        self,
        theta_at: Callable[[jax.Array], Theta],
        particles: Particle,
        keys: jax.Array,
        data: Mapping[str, Any],
        num_steps: int,
        *,
        checkpoint: bool = False,
    ) -> tuple[Particle, Trajectory]:
        """Advances all runs by a truncation, restarting those that have come to an end.

        `hyperparams` that `update` leaves alone follow theta at once; those that the
        optimizer moves by itself start from theta when their run starts.

        Args:
          theta_at: maps the number of restarts since the start of the truncation, int32
            (particles,), to theta, each leaf (particles, copies, ...).
          particles: the runs.
          keys: random keys (particles,), new ones for every truncation.
          data: the arrays of `splits`, by name.
          num_steps: steps of the truncation.
          checkpoint: where a gradient is taken, recompute a step rather than store it.
        """
        clock_keys, training_keys = split_keys(keys)
        clock = jax.vmap(partial(tick, self.schedule), out_axes=(0, 0, 1))
        step, length, ticks = clock(
            particles.step,
            particles.length,
            jax.vmap(lambda key: jax.random.split(key, num_steps))(clock_keys),
        )

        def advance(runs, now):
            ticks, keys = now
            thetas = theta_at(ticks.episode)
            # What a run leaves behind when it has ended may be NaN, and its gradient is
            # to be 0, not 0 · NaN. The compiler drops a choice between equals.
            ended = jax.lax.stop_gradient((runs, thetas))
            runs, trained = _where(ticks.restart, ended, (runs, thetas))
            runs, loss = self._train(runs, trained, keys, data)
            # Not batched, so that only a restart pays for the initialisation.
            runs = jax.lax.cond(
                ticks.restart.any(),
                lambda: _where(ticks.restart, self._fresh(thetas, keys.restart), runs),
                lambda: runs,
            )
            return runs, loss

        runs, loss = jax.lax.scan(
            jax.checkpoint(advance) if checkpoint else advance,
            self._begin(particles, theta_at(jnp.zeros_like(step))),
            (ticks, step_keys(training_keys, num_steps)),
        )
        return Particle(*runs, step, length), self._report(loss, ticks)

    def run_whole(
        self, thetas: Theta, keys: jax.Array, data: Mapping[str, Any], length: jax.Array
    ) -> tuple[Runs, Trajectory]:
        """Makes runs from start to end, of one length; later steps are masked.

        Args:
          thetas: theta of each run, each leaf (particles, copies, ...).
          keys: random keys (particles,).
          data: the arrays of `splits`, by name.
          length: int32 scalar, at most `schedule.longest`.
        """
        longest = self.schedule.longest
        init_keys, training_keys = split_keys(keys)
        all_keys = step_keys(training_keys, longest)

        def advance(t, carry):
            runs, losses = carry
            keys = jax.tree.map(lambda keys: keys[t], all_keys)
            runs, loss = self._train(runs, thetas, keys, data)
            return runs, losses.at[t].set(loss)

        copies = jax.tree.leaves(thetas)[0].shape[:2]
        losses = vary(jnp.zeros((longest, *copies)), keys)
        start = self._fresh(thetas, init_keys)
        runs, losses = jax.lax.fori_loop(0, length, advance, (start, losses))
        steps = jnp.broadcast_to(jnp.arange(longest)[:, None], losses.shape[:2])
        ticks = Ticks(steps >= length, steps == length - 1, jnp.zeros_like(steps))
        return runs, self._report(losses, ticks)

    def losses(
        self, runs: Runs, keys: jax.Array, data: Mapping[str, Any], num_batches: int
    ) -> tuple[jax.Array, jax.Array]:
        """The meta-losses of runs as they are, on other batches than they have seen.

        Args:
          runs: each leaf (particles, copies, ...).
          keys: random keys (particles,).
          data: the arrays of `splits`, by name.
          num_batches: batches of `meta_split`, or of "train".

        Returns:
          The meta-losses, float32 (num_batches, particles, copies), and which of the
          task's losses were finite.
        """
        split = data[self.meta_split or "train"]

        def particle(runs, keys):
            batch = self.task.sample(split, keys.meta_batch)
            return jax.vmap(lambda run: self._loss(run, batch, keys.meta_noise))(runs)

        loss = jax.lax.map(
            lambda keys: jax.vmap(particle)(runs, keys), step_keys(keys, num_batches)
        )
        return self._meta_loss(loss), jnp.isfinite(loss)

    def _fresh(self, thetas: Theta, keys: jax.Array) -> Runs:
        """Initial runs; the copies of a particle start alike."""

        def start(thetas, key):
            params, model_state = self.task.init(key)
            opt_state = self.transformation.init(params)
            return jax.vmap(
                lambda theta: (params, model_state, self._set(opt_state, theta))
            )(thetas)

        runs = jax.vmap(start)(thetas, keys)
        return vary(jax.tree.map(lambda leaf: _cast(leaf, leaf.dtype), runs), keys)

    def _begin(self, particles: Particle, thetas: Theta) -> Runs:
        """Runs at the start of a truncation: those without a step start from theta."""
        if not any(jax.tree.leaves(self._moved)):
            return particles.runs
        params, model_state, opt_state = particles.runs
        begun = jax.vmap(jax.vmap(self._set))(opt_state, thetas)
        return params, model_state, _where(particles.step == 0, begun, opt_state)

    def _set(self, opt_state: optax.OptState, theta: Theta) -> optax.OptState:
        """`opt_state` with all that theta says."""
        values = door.fill(door.get(opt_state), self.to_hyperparams(theta))
        return door.put(opt_state, values)

    def _hold(self, opt_state: optax.OptState, theta: Theta) -> optax.OptState:
        """`opt_state` with what theta says and the optimizer does not move itself."""
        own = door.get(opt_state)
        values = door.fill(own, self.to_hyperparams(theta))
        keep = lambda moved, own, value: own if moved else value  # noqa: E731
        return door.put(opt_state, jax.tree.map(keep, self._moved, own, values))

    def _train(
        self, runs: Runs, thetas: Theta, keys: StepKeys, data: Mapping[str, Any]
    ) -> tuple[Runs, jax.Array]:
        """A step of every run; copies share batches. Losses are (particles, copies)."""
        task = self.task

        def particle(runs, thetas, keys):
            batch = task.sample(data["train"], keys.batch)
            if self.meta_split is not None:
                meta_batch = task.sample(data[self.meta_split], keys.meta_batch)

            def copy(run, theta):
                run, loss = self._step(run, theta, batch, keys.noise)
                if self.meta_split is not None:
                    loss = self._loss(run, meta_batch, keys.meta_noise)
                return run, loss.astype(jnp.float32)

            return jax.vmap(copy)(runs, thetas)

        return jax.vmap(particle)(runs, thetas, keys)

    def _step(
        self, run: Runs, theta: Theta, batch: Any, key: jax.Array
    ) -> tuple[Runs, jax.Array]:
        params, model_state, opt_state = run
        (loss, model_state), grads = jax.value_and_grad(self.task.loss, has_aux=True)(
            params, model_state, batch, key
        )
        held = self._hold(opt_state, theta)
        updates, new_state = optax.with_extra_args_support(self.transformation).update(
            grads, held, params, value=loss
        )
        # Some optimizers promote the dtype of bfloat16 moments at the first update.
        opt_state = jax.tree.map(
            lambda new, old: _cast(new, old.dtype), new_state, held
        )
        return (optax.apply_updates(params, updates), model_state, opt_state), loss

    def _loss(self, run: Runs, batch: Any, key: jax.Array) -> jax.Array:
        params, model_state, _ = run
        loss, _ = self.task.loss(params, model_state, batch, key)
        return loss.astype(jnp.float32)

    def _report(self, loss: jax.Array, ticks: Ticks) -> Trajectory:
        trained = ~ticks.restart[..., None]
        meta_loss = jnp.where(trained, self._meta_loss(loss), 0)
        return Trajectory(meta_loss, jnp.isfinite(loss) | ~trained, ticks)

    def _meta_loss(self, loss: jax.Array) -> jax.Array:
        """Losses as estimators take them: normalised and finite."""
        normalized = jax.vmap(self.task.normalize)(loss.ravel()).reshape(loss.shape)
        normalized = normalized.astype(jnp.float32)
        # Each sign by itself and before they are differenced: inf - inf says nothing.
        meta_loss = jnp.where(jnp.isfinite(normalized), normalized, self.nonfinite_loss)
        if self.max_loss is not None:
            meta_loss = jnp.minimum(meta_loss, self.max_loss)
        return meta_loss


def vary(tree: Any, keys: jax.Array) -> Any:
    """`tree`, as something that may differ between devices, like keys of particles."""
    flag = jax.random.key_data(keys).ravel()[0] > 0
    # Unlike `jnp.where`, `select` does not drop empty leaves from the graph.
    return jax.tree.map(lambda leaf: jax.lax.select(flag, leaf, leaf), tree)


def _where(flags: jax.Array, yes: Any, no: Any) -> Any:
    """Of each particle, one tree or the other."""
    select = partial(jax.vmap(jax.lax.select), flags)
    return jax.tree.map(select, yes, no)


def _cast(leaf: jax.Array, dtype: Any) -> jax.Array:
    """`leaf` in that dtype, which is never weak; random keys stay what they are."""
    return leaf if jnp.issubdtype(dtype, jax.dtypes.prng_key) else leaf.astype(dtype)


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
