"""The compiled programs of a meta-step: one per task, and one that moves theta."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lopt import groups, parallel
from lopt.estimators.base import Estimate, Estimator
from lopt.parallel import AXIS
from lopt.unroll import Unroll

Theta = Any


class MetaState(NamedTuple):
    """What a meta-step carries to the next one; the same on every device.

    Attributes:
      theta: the meta-parameters.
      opt_state: the state of the meta-optimizer.
      key: the key of the run; that of a meta-step is folded from it.
      step: int32; meta-steps made.
      num_skipped: int32; how many of them had a gradient that was not finite.
      skipped_in_a_row: int32; how many of the last ones had.
    """

    theta: Theta
    opt_state: optax.OptState
    key: jax.Array
    step: jax.Array
    num_skipped: jax.Array
    skipped_in_a_row: jax.Array


class Carry(NamedTuple):
    """All that a meta-step takes over from the one before it.

    Attributes:
      state: the same on every device.
      particles: the estimator's state for each task, leaves (particles, ...), sharded;
        while meta-steps are made, a list of groups of them; see `MetaStep.split`.
    """

    state: MetaState
    particles: list[Any]


class Metrics(NamedTuple):
    """What is known of a meta-step after it.

    Attributes:
      meta_loss: float32 (tasks,); the meta-loss of each task that took part.
      grad_norm: float32; the global norm of the gradient of theta, before clipping.
      learning_rate: float32; that of the meta-optimizer if its state tells, else NaN.
      num_steps: int32; inner training steps.
      num_nonfinite: int32; how many of their losses were not finite.
      num_skipped: int32; as in `MetaState`.
      skipped_in_a_row: int32; as in `MetaState`.
    """

    meta_loss: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    num_steps: jax.Array
    num_nonfinite: jax.Array
    num_skipped: jax.Array
    skipped_in_a_row: jax.Array


class MetaStep:
    """One step of meta-training on every task, or on one of them in turn.

    A task's program advances its particles and communicates nothing; the program that
    moves theta sums what they found, in the one reduction of the meta-step. A device
    works at one group of particles after the other; on a CPU a group is one particle,
    whose arrays fit the cache, elsewhere all that the device has.

    Attributes:
      compile_seconds: how long the programs took to compile.
    """

    def __init__(
        self,
        unrolls: Sequence[Unroll],
        estimator: Estimator,
        meta_optimizer: optax.GradientTransformation,
        mesh: Mesh,
        *,
        round_robin: bool = False,
        particles_at_once: int | None = None,
    ):
        parallel.check_mesh(mesh, estimator.num_particles)
        num_local = estimator.num_particles // mesh.size
        self._on_cpu = mesh.devices.flat[0].platform == "cpu"
        if particles_at_once is None:
            particles_at_once = 1 if self._on_cpu else num_local
        if num_local % particles_at_once:
            raise ValueError(
                f"particles_at_once={particles_at_once} does not divide the "
                f"{num_local} particles of a device"
            )
        self._num_groups = num_local // particles_at_once
        self._unrolls = tuple(unrolls)
        self._estimator = estimator
        self._optimizer = optax.with_extra_args_support(meta_optimizer)
        self._mesh = mesh
        self._meeting = mesh
        if self._on_cpu and jax.process_count() == 1:
            # Threads of XLA's CPU client block in a reduction over devices, and where
            # they are few, for ever; arrays of one process can meet without one.
            self._meeting = Mesh(mesh.devices[:1], mesh.axis_names)
        self._round_robin = round_robin
        data = [{k: u.task.data[k] for k in u.splits} for u in self._unrolls]
        self._data = parallel.replicate(data, mesh)
        every_index = parallel.shard(
            np.arange(estimator.num_particles, dtype=np.int32), mesh
        )
        self._every_index = every_index
        self._indices = groups.split(every_index, self._num_groups, mesh)
        self.compile_seconds = 0.0

    def tasks(self, step: int) -> range:
        """Positions of the tasks that take part in meta-step `step`."""
        if not self._round_robin:
            return range(len(self._unrolls))
        return range(step % len(self._unrolls), step % len(self._unrolls) + 1)

    def start(self, theta: Theta, key: jax.Array) -> Carry:
        """The carry before the first meta-step, not yet split."""
        replicated = NamedSharding(self._mesh, P())

        def make_state(theta, key):
            # Copies, because the state is donated and theta is the caller's.
            theta, key = jax.tree.map(jnp.copy, (theta, key))
            zero = jnp.zeros((), jnp.int32)
            opt_state = self._optimizer.init(theta)
            return MetaState(theta, opt_state, key, zero, zero, zero)

        make = jax.jit(make_state, out_shardings=replicated)
        state = make(*parallel.replicate((theta, key), self._mesh))
        particles = [
            jax.jit(self._start_task(i))(state, self._every_index)
            for i in range(len(self._unrolls))
        ]
        return Carry(state, particles)

    def split(self, carry: Carry) -> Carry:
        """The carry as meta-steps take it: a list of groups in place of particles."""
        particles = [groups.split(p, self._num_groups, self._mesh) for p in carry[1]]
        return Carry(carry.state, particles)

    def join(self, carry: Carry) -> Carry:
        """The inverse of `split`, independent of the number of devices."""
        return Carry(carry.state, [groups.join(p, self._mesh) for p in carry.particles])

    def compile(self, carry: Carry) -> None:
        """Compiles every program for a carry such as this, which is split."""
        began = time.perf_counter()
        advance = [
            jax.jit(self._advance_task(i), donate_argnums=1).lower(
                carry.state, of_task[0], self._indices[0], self._data[i]
            )
            for i, of_task in enumerate(carry.particles)
        ]
        share = [
            _like(advance[i].out_info[1], NamedSharding(self._mesh, P(AXIS)))
            for i in self.tasks(0)
        ]
        join = jax.jit(self._join).lower([[x] * self._num_groups for x in share])
        joined = _like(join.out_info, NamedSharding(self._meeting, P(AXIS)))
        reduce = jax.jit(self._reduce).lower(joined)
        estimates = _like(reduce.out_info, NamedSharding(self._mesh, P()))
        move = jax.jit(self._move, donate_argnums=0).lower(carry.state, estimates)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            (
                self._join_program,
                self._reduce_program,
                self._move_program,
                *self._advance_programs,
            ) = pool.map(
                lambda program: program.compile(), [join, reduce, move, *advance]
            )
        self.compile_seconds = time.perf_counter() - began

    def __call__(self, step: int, carry: Carry) -> tuple[Carry, Metrics]:
        """Makes meta-step `step`; the carry, which is split, is donated."""
        state, particles, shares = carry.state, list(carry.particles), []
        for i in self.tasks(step):
            advanced = [
                self._advance_programs[i](state, group, indices, self._data[i])
                for group, indices in zip(particles[i], self._indices, strict=True)
            ]
            particles[i] = [group for group, _ in advanced]
            shares.append([share for _, share in advanced])
        state, metrics = self._move_program(state, self._sum(shares))
        return Carry(state, particles), metrics

    def _sum(self, shares: list[list[Estimate]]) -> list[Estimate]:
        """The sums over all particles, of each task, on every device."""
        joined = self._join_program(shares)
        if self._on_cpu:
            # Devices that start to reduce while they have other work may never meet.
            jax.block_until_ready(joined)
        if self._meeting == self._mesh:
            return self._reduce_program(joined)
        joined = jax.device_put(joined, NamedSharding(self._meeting, P(AXIS)))
        estimates = self._reduce_program(joined)
        return jax.device_put(estimates, NamedSharding(self._mesh, P()))

    def _start_task(self, i: int):
        unroll, estimator = self._unrolls[i], self._estimator

        def start(state, indices):
            key = jax.random.fold_in(jax.random.fold_in(state.key, 0), i)
            return estimator.init(unroll, state.theta, key, indices)

        return parallel.over_particles(
            start, self._mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS)
        )

    def _advance_task(self, i: int):
        unroll, estimator = self._unrolls[i], self._estimator

        def advance(state, group, indices, data):
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step + 1), i)
            group, estimate = estimator.estimate(
                unroll, state.theta, group, key, indices, data
            )
            return group, jax.tree.map(lambda x: x[None], estimate)

        return parallel.over_particles(
            advance,
            self._mesh,
            in_specs=(P(), P(AXIS), P(AXIS), P()),
            out_specs=(P(AXIS), P(AXIS)),
        )

    def _join(self, shares: list[list[Estimate]]) -> list[Estimate]:
        """The shares of each task, in the order of particles."""
        return [groups.join(of_task, self._mesh) for of_task in shares]

    def _reduce(self, joined: list[Estimate]) -> list[Estimate]:
        """Sums over all particles, of each task."""
        return parallel.sum_over_particles(joined, self._meeting)

    def _move(self, state: MetaState, estimates: list[Estimate]):
        """Moves theta by the mean over tasks and particles, if that is finite."""
        num_particles = self._estimator.num_particles
        gradient = jax.tree.map(
            lambda *g: sum(g) / (num_particles * len(g)),
            *[e.gradient for e in estimates],
        )
        meta_loss = jnp.stack([e.loss for e in estimates]) / num_particles
        updates, opt_state = self._optimizer.update(
            gradient, state.opt_state, state.theta, value=meta_loss.mean()
        )
        moved = optax.apply_updates(state.theta, updates), opt_state
        # Also what moved: the square of a huge gradient would stay infinite in Adam.
        finite = _all_finite((gradient, moved))
        theta, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            moved,
            (state.theta, state.opt_state),
        )
        skipped = 1 - finite.astype(jnp.int32)
        state = MetaState(
            theta,
            opt_state,
            state.key,
            state.step + 1,
            state.num_skipped + skipped,
            skipped * (state.skipped_in_a_row + 1),
        )
        return state, Metrics(
            meta_loss=meta_loss,
            grad_norm=optax.tree.norm(gradient),
            learning_rate=_learning_rate(opt_state),
            num_steps=jnp.stack([e.num_steps for e in estimates]).sum(),
            num_nonfinite=jnp.stack([e.num_nonfinite for e in estimates]).sum(),
            num_skipped=state.num_skipped,
            skipped_in_a_row=state.skipped_in_a_row,
        )


def _all_finite(tree: Any) -> jax.Array:
    floating = [
        x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floating]))


def _like(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def _learning_rate(opt_state: optax.OptState) -> jax.Array:
    found = optax.tree.get_all_with_path(opt_state, "learning_rate")
    known = [rate for _, rate in found if getattr(rate, "shape", None) == ()]
    return jnp.asarray(known[0] if known else jnp.nan, jnp.float32)
