"""What the command line runs: frozen dataclasses, and the presets."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from typing import Any, Literal

from lopt.augmentation import rescale_weights
from lopt.celo2 import Celo2
from lopt.estimators import (
    PES,
    FullES,
    NoiseReuseES,
    TruncatedBackprop,
    TruncatedES,
)
from lopt.heldout import HeldOut
from lopt.meta_optimizer import WarmupCosineAdamW
from lopt.small_fc import SmallFC
from lopt.truncation import LogUniform
from tasks.base import Task


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Tasks, each in one or several widths."""

    names: tuple[str, ...] = ("digits-mlp",)
    """Names that `get` of the module knows."""
    widths: tuple[int, ...] = (32,)
    """One task per name and width."""
    overrides: tuple[str, ...] = ("depth=3", "batch_size=64", "parametrization=mup")
    """Further arguments of the tasks, as NAME=VALUE."""
    module: str = "tasks"
    """The module whose `get(name, **overrides)` makes tasks."""
    data_dir: str | None = None
    """The folder of data that is not embedded."""
    rescale: tuple[float, float] | None = None
    """LOW HIGH: weights are seen divided by a factor in between, drawn in every run."""
    rescale_per: Literal["task", "tensor", "parameter"] = "task"
    """What shares that factor: all weights of a run, those of a tensor, or none."""

    def build(self) -> list[Task]:
        """The tasks.

        Raises:
          ValueError: the module, the task, a width or an override is not allowed.
        """
        try:
            get = importlib.import_module(self.module).get
        except (ImportError, AttributeError) as e:
            raise ValueError(
                f"task.module {self.module!r} cannot be used ({e}); it must be a "
                "module with a function get(name, **overrides)"
            ) from e
        if not self.names or not self.widths:
            empty = "widths" if self.names else "names"
            raise ValueError(f"task.{empty} is empty; give at least one of them")
        options = dict(map(_parse, self.overrides))
        if self.data_dir is not None:
            options["data_dir"] = self.data_dir
        made = [
            get(name, width=width, **options)
            for name in self.names
            for width in self.widths
        ]
        if self.rescale is None:
            return made
        return [rescale_weights(task, *self.rescale, self.rescale_per) for task in made]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Trainings from scratch with the current theta, on the widest task and beyond."""

    every: int = 250
    """Meta-steps between evaluations; 0 for none."""
    widths: tuple[int, ...] = (256,)
    """Widths of the tasks; they need not be among those of meta-training."""
    steps: int = 500
    """Training steps."""
    num_seeds: int = 3
    """Trainings per width."""

    def build(self, task: TaskConfig) -> HeldOut | None:
        """What `meta_train` takes; its tasks are not rescaled."""
        if not self.every:
            return None
        tasks = dataclasses.replace(task, widths=self.widths, rescale=None).build()
        return HeldOut(tasks, self.every, self.steps, self.num_seeds)


@dataclasses.dataclass(frozen=True)
class MetaTrainConfig:
    """A meta-training run: what it depends on."""

    architecture: SmallFC | Celo2
    task: TaskConfig
    estimator: PES | NoiseReuseES | TruncatedES | FullES | TruncatedBackprop
    schedule: LogUniform
    meta_optimizer: WarmupCosineAdamW
    evaluation: EvaluationConfig
    steps: int = 1000
    """Meta-steps."""
    start: str | None = None
    """Weights to start from, a name or a path; random ones by default."""
    seed: int = 0
    """Decides all randomness."""
    max_loss: float | None = None
    """Inner losses above it count as it."""
    task_order: Literal["all", "round_robin"] = "all"
    """Every meta-step takes the mean over all tasks, or one of them in turn."""
    max_skips: int = 20
    """Meta-gradients in a row that may be not finite before the run stops."""


def _preset(
    parametrization: Literal["mup", "sp"], widths: tuple[int, ...]
) -> MetaTrainConfig:
    overrides = ("depth=3", "batch_size=64", f"parametrization={parametrization}")
    return MetaTrainConfig(
        architecture=SmallFC(parametrization=parametrization),
        task=TaskConfig(widths=widths, overrides=overrides),
        estimator=PES(num_particles=8, std=0.01, truncation_length=50),
        schedule=LogUniform(100, 1000, stagger=50),
        meta_optimizer=WarmupCosineAdamW(),
        evaluation=EvaluationConfig(),
    )


def _celo2(
    names: tuple[str, ...],
    *,
    learning_rate: float,
    rescale: tuple[float, float],
    estimator: PES | NoiseReuseES,
    longest: int,
    meta_optimizer: WarmupCosineAdamW,
    steps: int,
) -> MetaTrainConfig:
    """On an MLP of one hidden layer that sees grey images of 8x8 pixels."""
    return MetaTrainConfig(
        architecture=Celo2(learning_rate, adam_bias_correction=False),
        task=TaskConfig(
            names,
            overrides=("depth=1", "batch_size=64", "size=8", "grey=True"),
            rescale=rescale,
        ),
        estimator=estimator,
        schedule=LogUniform(100, longest, stagger=longest),
        meta_optimizer=meta_optimizer,
        evaluation=EvaluationConfig(
            every=max(1, steps // 10), widths=(32,), steps=longest
        ),
        steps=steps,
    )


_CELO2 = _celo2(
    ("mnist-mlp", "fashion-mnist-mlp", "cifar10-mlp", "digits-mlp"),
    learning_rate=1e-3,
    rescale=(1e-3, 1e3),
    estimator=PES(num_particles=8, std=0.01, truncation_length=50),
    longest=2000,
    meta_optimizer=WarmupCosineAdamW(5e-5, 5e-5, warmup_fraction=0),
    steps=100_000,
)
_CELO2_MINI = _celo2(
    ("digits-mlp",),
    learning_rate=3e-3,
    rescale=(0.1, 10.0),
    estimator=NoiseReuseES(num_particles=8, std=0.01, truncation_length=50),
    longest=1000,
    meta_optimizer=WarmupCosineAdamW(3e-3, clip_norm=1.0),
    steps=700,
)

ESTIMATORS = {
    "pes": PES,
    "noise-reuse-es": NoiseReuseES,
    "truncated-es": TruncatedES,
    "full-es": FullES,
    "truncated-backprop": TruncatedBackprop,
}

DEFAULT_PRESET = "mulo-s"
PRESETS = {
    "mulo-s": ("muLO, one width", _preset("mup", (32,))),
    "mulo-m": ("muLO, three widths", _preset("mup", (16, 32, 64))),
    "lo-s": ("mulo-s in standard parametrization, one width", _preset("sp", (32,))),
    "lo-m": (
        "mulo-m in standard parametrization, three widths",
        _preset("sp", (16, 32, 64)),
    ),
    "celo2": ("Celo2 on four sets of images; needs a folder of data", _CELO2),
    "celo2-mini": ("Celo2 on embedded digits, in minutes", _CELO2_MINI),
}


def _parse(override: str) -> tuple[str, Any]:
    name, separator, value = override.partition("=")
    if not separator or not name.isidentifier():
        raise ValueError(
            f"task.overrides has {override!r}, which is not NAME=VALUE, such as depth=3"
        )
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
