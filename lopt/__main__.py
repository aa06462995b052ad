"""`python -m lopt meta-train`: meta-trains a learned optimizer."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import optax
import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from lopt import parallel
from lopt.checkpoint import Checkpoints
from lopt.config import DEFAULT_PRESET, ESTIMATORS, PRESETS, MetaTrainConfig
from lopt.description import describe
from lopt.inspect_command import inspect
from lopt.meta_training import MetaTraining, meta_train
from lopt.weights import load_pretrained, save_pretrained

_PACKAGES = ("mada-optax", "jax", "jaxlib", "optax", "flax", "numpy")


@dataclasses.dataclass(frozen=True)
class Where:
    """Where a run is kept, and what it runs on; its result does not depend on these."""

    out: pathlib.Path
    """Directory of the configuration, metrics, checkpoints, theta and its plot."""
    resume: bool = False
    """Go on from the last whole checkpoint in the directory."""
    checkpoint_every: int = 100
    """Meta-steps between checkpoints."""
    tensorboard: bool = False
    """Also write metrics for TensorBoard, to OUT/tensorboard."""
    devices: int | None = None
    """Virtual devices of a CPU; with as many as it has cores, all of them work."""
    distributed: bool = False
    """Find the other processes from the environment: TPU pods, SLURM, Open MPI."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where the environment does not tell."""
    num_processes: int | None = None
    """Number of processes, together with --coordinator."""
    process_id: int | None = None
    """Number of this process, together with --coordinator."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Meta-trains a learned optimizer."""

    config: Annotated[MetaTrainConfig, tyro.conf.arg(name="")]
    where: Annotated[Where, tyro.conf.arg(name="")]
    estimator: Annotated[str, tyro.conf.arg(metavar="|".join(ESTIMATORS))] = "pes"
    """Whose options --estimator.* are; --help beside it shows them."""


def run(config: MetaTrainConfig, where: Where, command: Sequence[str]) -> MetaTraining:
    """Meta-trains, and leaves everything in the directory.

    Raises:
      ValueError: the configuration does not fit, or the directory holds another run.
      lopt.Interrupted: after Ctrl-C.
    """
    parallel.start_processes(
        devices=where.devices,
        distributed=where.distributed,
        coordinator=where.coordinator,
        num_processes=where.num_processes,
        process_id=where.process_id,
    )
    known = Checkpoints(where.out / "checkpoints", {}).steps()
    if known and not where.resume:
        raise ValueError(
            f"{where.out} holds a run up to meta-step {known[-1]}; --resume goes on "
            "with it, another --out starts a new one"
        )
    origin = {
        "config": describe(config),
        "command": shlex.join(["python", "-m", "lopt", *command]),
        "versions": _versions(),
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    start = None if config.start is None else load_pretrained(config.start).theta
    tasks, evaluation = config.task.build(), config.evaluation.build(config.task)
    if parallel.is_first_process() and not known:
        where.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(origin, indent=1)
        (where.out / "config.json").write_text(f"{text}\n")
    result = meta_train(
        config.architecture,
        start,
        tasks,
        config.estimator,
        config.meta_optimizer,
        steps=config.steps,
        schedule=config.schedule,
        seed=config.seed,
        task_order=config.task_order,
        max_loss=config.max_loss,
        evaluation=evaluation,
        checkpoint_dir=where.out / "checkpoints",
        checkpoint_every=where.checkpoint_every,
        resume=where.resume,
        metrics_file=where.out / "metrics.jsonl",
        tensorboard_dir=where.out / "tensorboard" if where.tensorboard else None,
        max_skips=config.max_skips,
    )
    if parallel.is_first_process():
        _write(result, config, where.out, origin)
    return result


def main() -> None:
    """The command line."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:])
    if arguments[:1] != ["meta-train"]:
        print(
            f"usage: python -m lopt meta-train [{'|'.join(PRESETS)}] --out DIR "
            "[--resume] [--estimator NAME] ..."
        )
        print("       python -m lopt inspect FILE [--variant NAME]")
        print("--help after the name of a preset shows all options")
        raise SystemExit(0 if arguments[:1] in ([], ["-h"], ["--help"]) else 2)
    try:
        parsed = parse(arguments[1:])
        run(parsed.config, parsed.where, arguments)
    except KeyboardInterrupt as e:
        # Of `Interrupted`, all but what to do, which is different here.
        print(f"\n{str(e).rpartition('; ')[0] or 'interrupted'}", file=sys.stderr)
        again = [word for word in arguments if word != "--resume"]
        command = shlex.join(["python", "-m", "lopt", *again, "--resume"])
        print(f"to go on: {command}", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, RuntimeError, FloatingPointError) as e:
        print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments after `meta-train`, which start with a preset or leave it out."""
    rest, estimator = list(arguments), _estimator(arguments)
    if rest and rest[0].startswith("--") and rest[0] != "--help":
        rest = [DEFAULT_PRESET, *rest]
    if rest and not rest[0].startswith("-") and rest[0] not in PRESETS:
        raise ValueError(f"unknown preset {rest[0]!r}; there are {', '.join(PRESETS)}")
    presets = {}
    for name, (description, config) in PRESETS.items():
        if estimator is not None:
            config = dataclasses.replace(config, estimator=estimator)
        presets[name] = description, Arguments(config, Where(out=tyro.MISSING))
    return tyro.extras.overridable_config_cli(
        presets,
        prog="python -m lopt meta-train",
        args=rest,
        config=(tyro.conf.SuppressFixed,),
        registry=_registry(),
    )


def _registry() -> ConstructorRegistry:
    """On the command line, a learning rate is a number, and no schedule."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number(info):
        if info.type != optax.ScalarOrSchedule:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda words: float(words[0]),
            is_instance=lambda value: isinstance(value, float),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _estimator(arguments: Sequence[str]) -> Any:
    """The one that `--estimator NAME` or `--estimator=NAME` asks for, or `None`."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, separator, value = word.partition("=")
        if option == "--estimator":
            name = value if separator else following
            if name not in ESTIMATORS:
                raise ValueError(
                    f"--estimator must be one of {', '.join(ESTIMATORS)}, got {name!r}"
                )
            return ESTIMATORS[name]()
    return None


def _write(
    result: MetaTraining,
    config: MetaTrainConfig,
    out: pathlib.Path,
    origin: dict[str, Any],
) -> None:
    last = {k: v for r in result.records[-1:] for k, v in r.items() if v == v}
    evaluation = result.evaluations[-1] if result.evaluations else {}
    save_pretrained(
        out / "theta.npz",
        result.hyperparams,
        {
            "architecture": config.architecture,
            **origin,
            "steps": result.steps,
            "metrics": {**last, **evaluation},
        },
    )
    result.plot(out / "meta_loss.png")
    print(f"theta     {out / 'theta.npz'}")
    print(f"metrics   {out / 'metrics.jsonl'}")
    print(f"meta-loss {out / 'meta_loss.png'}")
    print(
        f"time      {result.compile_seconds:.1f} s to compile, "
        f"{result.seconds:.1f} s to meta-train and evaluate"
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


if __name__ == "__main__":
    main()
