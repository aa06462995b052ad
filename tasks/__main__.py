"""`python -m tasks`: evaluate optimizers, rebuild a report, check muP, list tasks."""

from __future__ import annotations

import collections
import pathlib
import shlex
import sys
import textwrap
from collections.abc import Callable
from typing import Annotated, TypeVar

import tyro

from tasks import data_cli, registry
from tasks.coordinates import coordinate_check
from tasks.evaluation import Evaluation
from tasks.results import Results
from tasks.suites import get_suite, list_suites

T = TypeVar("T")
app = tyro.extras.SubcommandApp()
Repeatable = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]


@app.command
def evaluate(
    suite: tyro.conf.Positional[str] = "default",
    *,
    optimizer: Repeatable = (),
    task: Repeatable = (),
    seeds: int = 5,
    steps: int | None = None,
    eval_every: int | None = None,
    baseline: str | None = None,
    out: pathlib.Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data_dir: pathlib.Path | None = None,
    seeds_in_parallel: int | None = None,
    devices: int = 1,
    shard_params: bool = False,
) -> None:
    """Run a suite, print its table, write its records, plots and page.

    Several processes share the work: start each of them with the same arguments and
    --resume.

    Args:
        suite: A suite of `python -m tasks list`.
        optimizer: Import path with literal arguments, such as
            "optax:adamw(learning_rate=1e-3)"; replaces those of the suite.
        task: Restricts the suite to this task, such as "digits-mlp(width=128)". One
            that the suite does not have needs --optimizer too.
        seeds: Number of paired seeds, trained side by side.
        steps: Training steps; by default what the suite says.
        eval_every: Steps between evaluations; by default what the suite says.
        baseline: Name of the optimizer that the others are compared with; by default
            what the suite says.
        out: Directory of the results; by default runs/SUITE.
        resume: Keep the records in the directory and run what is missing.
        overwrite: Delete the records in the directory first.
        data_dir: Where tasks look for data that is not embedded.
        seeds_in_parallel: Seeds trained side by side; by default all, one for large
            models.
        devices: Devices over which a batch is spread; seeds then come one by one.
        shard_params: Spread parameters and the optimizer's state over them too.
    """
    out = out or pathlib.Path("runs") / suite
    try:
        evaluation = _checked(
            lambda: Evaluation(
                get_suite(suite).only(_flat(task)) if task else get_suite(suite),
                _flat(optimizer),
                seeds=seeds,
                steps=steps,
                eval_every=eval_every,
                baseline=baseline,
                out_dir=out,
                resume=resume,
                overwrite=overwrite,
                data_dir=data_dir,
                seeds_in_parallel=seeds_in_parallel,
                devices=devices,
                shard_params=shard_params,
            )
        )
        if evaluation.num_repeated:
            print(
                f"{out} holds {evaluation.num_repeated} of these runs, which are run "
                "again; --resume would keep them",
                file=sys.stderr,
            )
        results = evaluation.run()
    except KeyboardInterrupt:
        again = [w for w in sys.argv[1:] if w not in ("--resume", "--overwrite")]
        command = shlex.join(["python", "-m", "tasks", *again, "--resume"])
        print(f"\ninterrupted; finished runs are in {out}", file=sys.stderr)
        print(f"to go on: {command}", file=sys.stderr)
        raise SystemExit(130) from None
    _show(results)


@app.command
def report(directory: tyro.conf.Positional[pathlib.Path]) -> None:
    """Print the table, write the plots and the page of an evaluation, from its records.

    Args:
        directory: The --out of an evaluation.
    """
    _show(_checked(lambda: Results.load(directory)))


@app.command(name="coord-check")
def coord_check(
    task: tyro.conf.Positional[str],
    *,
    optimizer: str,
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    steps: tuple[int, ...] = (1, 2, 5, 10, 20),
    seeds: int = 3,
    out: pathlib.Path = pathlib.Path("runs/coord-check.png"),
    data_dir: pathlib.Path | None = None,
) -> None:
    """Check that training moves pre-activations equally far at every width.

    Prints the slope of log change over log width by layer and step, plots the changes,
    and exits with 1 if one is not flat.

    Args:
        task: A task of `python -m tasks list`, such as
            "digits-mlp(depth=3, parametrization='mup')"; its width is replaced.
        optimizer: Import path with literal arguments, such as
            "tasks:mup_adam(0.03)".
        widths: At least two widths.
        steps: After how many training steps to measure.
        seeds: Number of initialisations that are averaged.
        out: File of the plot.
        data_dir: Where tasks look for data that is not embedded.
    """
    name, options = _checked(lambda: registry.parse(task))
    if data_dir is not None:
        options["data_dir"] = data_dir
    check = _checked(
        lambda: coordinate_check(
            lambda width: registry.get(name, **{**options, "width": width}),
            optimizer,
            widths,
            steps,
            seeds=seeds,
        )
    )
    check.plot(out)
    print(check.table())
    print(f"\nplot {out}")
    sys.exit(0 if check.passed else 1)


@app.command(name="list")
def list_() -> None:
    """Show the suites and the tasks."""
    print("suites:")
    for suite in map(get_suite, list_suites()):
        print(f"  {suite.name}: {suite.description}")
        entries = collections.defaultdict(list)
        for entry in suite.entries:
            entries[entry.task_name.partition("(")[0]].append(entry)
        for name, of_task in entries.items():
            sizes = len({(entry.task_name, entry.steps) for entry in of_task})
            variants = f" in {sizes} variants" if sizes > 1 else ""
            steps = " or ".join(map(str, sorted({entry.steps for entry in of_task})))
            print(f"    {name}{variants}, {steps} steps")
    print("tasks:")
    for name in registry.list_tasks():
        print(_wrapped(f"  {registry.describe(name)}"))


@app.command
def data(command: Annotated[data_cli.Command, tyro.conf.arg(name="")]) -> None:
    """Say which data sets are there, or write token files from text.

    Args:
        command: What to do.
    """
    _checked(command.run)


def main() -> None:
    """The command line."""
    app.cli(prog="python -m tasks", description=__doc__)


def _show(results: Results) -> None:
    print(results.table())
    if results.directory is None:
        raise ValueError("results without a directory cannot be written")
    results.plot(results.directory / "plots")
    print(f"\nrecords {results.directory / 'records'}")
    print(f"plots   {results.directory / 'plots'}")
    print(f"page    {results.to_html()}")


def _wrapped(line: str) -> str:
    return textwrap.fill(
        line, width=100, subsequent_indent=" " * 6, break_on_hyphens=False
    )


def _checked(make: Callable[[], T]) -> T:
    """Turns a mistake of the user's into one line, without the noise of a traceback."""
    try:
        return make()
    except (ValueError, OSError, ModuleNotFoundError) as e:
        print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _flat(groups: tuple[tuple[str, ...], ...]) -> list[str]:
    return [name for names in groups for name in names]


if __name__ == "__main__":
    main()
