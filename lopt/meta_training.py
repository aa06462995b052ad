"""The outer loop: an estimator's gradients move theta, through any Optax optimizer."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lopt import factories, parallel
from lopt.checkpoint import Checkpoints
from lopt.checks import check_counts, check_option
from lopt.description import describe
from lopt.estimators.base import Estimator
from lopt.heldout import HeldOut, evaluator
from lopt.interruption import Interruption
from lopt.meta_loop import Loop
from lopt.meta_optimizer import WarmupCosineAdamW
from lopt.meta_step import MetaStep
from lopt.progress import Log, Record, check_tensorboard
from lopt.truncation import LogUniform, Schedule
from lopt.unroll import Unroll
from tasks.base import Task, TaskFamily

Theta = Any


@dataclasses.dataclass(frozen=True)
class MetaTraining:
    """What came out of a meta-training run.

    Attributes:
      hyperparams: theta, a pytree of NumPy arrays.
      records: one dict per meta-step; see `history`.
      evaluations: one dict per evaluation of held-out tasks.
      steps: meta-steps made.
      compile_seconds: how long it took until meta-steps could begin: the programs were
        compiled, and the particles started.
      seconds: how long the meta-steps of this run took, evaluations included.
      config: what the run depends on, as JSON.
    """

    hyperparams: Theta
    records: Sequence[Record]
    evaluations: Sequence[Record]
    steps: int
    compile_seconds: float
    seconds: float
    config: Mapping[str, Any]

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Each metric over meta-steps, by name; NaN where a step does not have it."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return {
            name: np.array([record.get(name, np.nan) for record in self.records])
            for name in names
        }

    def plot(self, path: str | os.PathLike | None = None):
        """The meta-loss over meta-steps, as a figure; also written to `path`."""
        from lopt.plots import meta_loss_figure

        figure = meta_loss_figure(self.records, self.evaluations)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run between two meta-steps.

    What it had come to is in its checkpoint, if it has a `checkpoint_dir`.

    Attributes:
      result: what the run has come to, a `MetaTraining`.
    """

    def __init__(self, message: str, result: MetaTraining):
        super().__init__(message)
        self.result = result


def meta_train(
    make_transform: Any,
    hyperparams: Theta | None,
    tasks: Task | TaskFamily | Sequence[Task | TaskFamily],
    estimator: Estimator,
    meta_optimizer: optax.GradientTransformation | WarmupCosineAdamW | None = None,
    *,
    steps: int,
    schedule: Schedule | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    particles_at_once: int | None = None,
    task_order: Literal["all", "round_robin"] = "all",
    to_hyperparams: Callable[[Theta], Any] | None = None,
    max_loss: float | None = None,
    nonfinite_loss: float = 20.0,
    meta_split: str | None = None,
    evaluation: HeldOut | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    metrics_file: str | os.PathLike | None = None,
    tensorboard_dir: str | os.PathLike | None = None,
    progress: bool = True,
    max_skips: int = 20,
    config: Mapping[str, Any] | None = None,
) -> MetaTraining:
    """Meta-trains whatever is behind the `hyperparams` of an optimizer's state.

    The result depends on the arguments up to `meta_split`: not on interruptions, and
    not on the number of devices, beyond what the compiler rounds otherwise.

    Args:
      make_transform: what is meta-trained: a `LearnedOptimizer`, a gradient
        transformation whose state has a field `hyperparams`, or a function that returns
        one; the function gets the task's `width_multipliers` and `labels`, and
        `num_steps`, the length of the longest run or of a held-out one, if it has
        parameters of these names.
      hyperparams: theta at the start, a pytree of float32 arrays; `None` means
        `make_transform.init` of a learned optimizer, or the `hyperparams` that a
        transformation starts with.
      tasks: what it is meta-trained on.
      estimator: of the gradient of the meta-loss, such as `lopt.pes()`; its particles
        are per task.
      meta_optimizer: moves theta; by default `WarmupCosineAdamW()`, the μLO recipe.
      steps: meta-steps.
      schedule: lengths of the inner runs; by default `LogUniform(100, 1000, 50)`.
      seed: decides all randomness.
      mesh: devices that share the particles; by default `particle_mesh()`, all of them.
      particles_at_once: how many particles a device works at in parallel; by default
        one on a CPU, and all it has elsewhere.
      task_order: "all" takes the mean over all tasks at every meta-step, "round_robin"
        takes one task per meta-step, in turn.
      to_hyperparams: maps theta to values for `hyperparams`, by default itself.
      max_loss: meta-losses above it count as it, or `None`.
      nonfinite_loss: stands in for a meta-loss that is not finite.
      meta_split: `None` takes as meta-loss the loss of each step, on its batch; the
        name of a split takes the loss after the step on another batch, of that split.
      evaluation: held-out tasks that are trained from scratch every so often.
      checkpoint_dir: where checkpoints go; process 0 and all others must see it.
      checkpoint_every: meta-steps between checkpoints.
      resume: go on from the last whole checkpoint in `checkpoint_dir`, if there is one.
      metrics_file: a JSONL file with the record of every meta-step and evaluation.
      tensorboard_dir: where to write them for TensorBoard; needs tensorboardX.
      progress: whether to show a bar.
      max_skips: meta-gradients in a row that may be not finite before the run stops.
      config: JSON that a checkpoint keeps and that must be the same when it goes on.

    Returns:
      The theta at the end, and how it went.

    Raises:
      ValueError: an argument does not fit; found before anything is compiled.
      FloatingPointError: `max_skips` meta-gradients in a row were not finite.
      Interrupted: after Ctrl-C, once a checkpoint is written. A second Ctrl-C does not
        wait for that.

    Example:
      >>> import lopt, tasks  # doctest: +SKIP
      >>> result = lopt.meta_train(
      ...     lopt.small_fc(), None, tasks.get("digits-mlp"), lopt.pes(), steps=100
      ... )  # doctest: +SKIP
    """
    check_counts(steps=steps, checkpoint_every=checkpoint_every, max_skips=max_skips)
    check_counts(minimum=0, seed=seed)
    check_option("task_order", task_order, ("all", "round_robin"))
    check_tensorboard(tensorboard_dir)
    schedule = LogUniform() if schedule is None else schedule
    mesh = parallel.particle_mesh() if mesh is None else mesh
    meta_optimizer = WarmupCosineAdamW() if meta_optimizer is None else meta_optimizer
    options: dict[str, Any] = {
        "max_loss": max_loss,
        "nonfinite_loss": nonfinite_loss,
        "meta_split": meta_split,
    }
    if to_hyperparams is not None:
        options["to_hyperparams"] = to_hyperparams
    chosen = factories.flatten_tasks(tasks)
    theta_key, run_key, held_out_key = jax.random.split(jax.random.key(seed), 3)
    if hyperparams is None:
        hyperparams = factories.initial_theta(
            make_transform, chosen[0], schedule.longest, theta_key
        )
    theta = jax.tree.map(_float32, hyperparams)

    def unroll(task: Task, num_steps: int = schedule.longest) -> Unroll:
        made = factories.build(make_transform, theta, task, num_steps)
        return Unroll(task, made, schedule, **options)

    unrolls = [unroll(task) for task in chosen]
    for each in unrolls:
        each.check(theta)
    run_config = {
        "make_transform": describe(make_transform),
        "theta": _shapes(theta),
        "tasks": [{"name": t.name, **describe(dict(t.metadata))} for t in chosen],
        "estimator": describe(estimator),
        "meta_optimizer": describe(meta_optimizer),
        "steps": steps,
        "schedule": describe(schedule),
        "seed": seed,
        "task_order": task_order,
        "unroll": describe(options),
        "user": describe(dict(config or {})),
    }
    checkpoints = _checkpoints(checkpoint_dir, run_config, resume)
    if isinstance(meta_optimizer, WarmupCosineAdamW):
        meta_optimizer = meta_optimizer.build(steps)
    meta_step = MetaStep(
        unrolls,
        estimator,
        meta_optimizer,
        mesh,
        round_robin=task_order == "round_robin",
        particles_at_once=particles_at_once,
    )
    evaluate = evaluator(evaluation, unroll, held_out_key) if evaluation else None

    began = time.perf_counter()
    with Interruption() as interruption:
        start, carry = 0, meta_step.start(theta, run_key)
        if checkpoints and resume:
            start, carry = checkpoints.restore(carry) or (start, carry)
        carry = meta_step.split(carry)
        with Log(
            steps,
            start=start,
            metrics_file=metrics_file,
            tensorboard_dir=tensorboard_dir,
            progress=progress,
            max_skips=max_skips,
        ) as log:
            meta_step.compile(carry)
            compiled = time.perf_counter()
            log.compiled(compiled - began)
            loop = Loop(
                meta_step,
                [task.name for task in chosen],
                log,
                checkpoints,
                checkpoint_every,
                evaluate,
                evaluation.every if evaluation else steps,
            )
            stop, carry = loop.run(carry, range(start, steps), interruption)
    result = MetaTraining(
        hyperparams=jax.device_get(carry.state.theta),
        records=log.records,
        evaluations=log.evaluations,
        steps=stop,
        compile_seconds=compiled - began,
        seconds=time.perf_counter() - compiled,
        config=run_config,
    )
    if stop < steps:
        raise Interrupted(_what_is_kept(stop, checkpoints), result)
    return result


def _what_is_kept(step: int, checkpoints: Checkpoints | None) -> str:
    if step == 0:
        return "interrupted before the first meta-step; there was nothing to save"
    if checkpoints is None:
        return f"interrupted after meta-step {step}; without checkpoint_dir, not saved"
    return (
        f"interrupted after meta-step {step}, saved in {checkpoints.directory}; "
        "resume=True goes on from there"
    )


def _checkpoints(
    directory: str | os.PathLike | None, config: Mapping[str, Any], resume: bool
) -> Checkpoints | None:
    if directory is None:
        if resume:
            raise ValueError("resume=True needs a checkpoint_dir")
        return None
    checkpoints = Checkpoints(directory, config)
    if checkpoints.steps() and not resume:
        raise ValueError(
            f"{checkpoints.directory} holds a run up to meta-step "
            f"{checkpoints.steps()[-1]}; resume=True goes on with it, another "
            "directory starts a new one"
        )
    return checkpoints


def _float32(leaf: Any) -> np.ndarray:
    """Python's floats too; integers stay, to be refused by name."""
    leaf = np.asarray(leaf)
    return leaf.astype(np.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _shapes(theta: Theta) -> dict[str, list[int]]:
    leaves = jax.tree_util.tree_leaves_with_path(theta)
    return {jax.tree_util.keystr(path): list(leaf.shape) for path, leaf in leaves}
