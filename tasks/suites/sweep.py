"""The sweep that chose the learning rates of a suite.

`python -m tasks.suites.sweep` runs it and prints what won. Every optimizer gets five
learning rates, half a decade apart, and two seeds that the suite does not use.
"""

from __future__ import annotations

import dataclasses
import pathlib

import tyro

from tasks.evaluation import evaluate
from tasks.suites import Suite, get_suite

SEEDS = (100, 101)
_ADAM_LIKE = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RATES = {
    "optax:sgd(learning_rate={}, momentum=0.9)": (0.01, 0.03, 0.1, 0.3, 1.0),
    "optax:adamw(learning_rate={})": _ADAM_LIKE,
    "optax:lion(learning_rate={})": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "mada_optax:adam(learning_rate={}, b2=0.95)": _ADAM_LIKE,
    "mada_optax:avgrad(learning_rate={})": _ADAM_LIKE,
    "mada_optax:hyper_adam(learning_rate={})": _ADAM_LIKE,
    "mada_optax:mada(learning_rate={})": _ADAM_LIKE,
}


def sweep(
    suite: str = "default",
    optimizers: tuple[str, ...] = tuple(RATES),
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("runs/sweep"),
) -> None:
    """Prints, for every task and optimizer, the rate with the lowest validation loss.

    The loss is the final one, or where the suite stops runs early, that of the weights
    that are restored.

    Args:
      suite: the suite whose tasks and steps are used.
      optimizers: specs with a learning rate of {}; those that the default suite does
        not have get the rates of Adam.
      data_dir: where tasks look for data that is not embedded.
      out: directory of the records; an interrupted sweep goes on where it stopped.
    """
    grids = {spec: RATES.get(spec, _ADAM_LIKE) for spec in optimizers}
    specs = [spec.format(rate) for spec, rates in grids.items() for rate in rates]
    entries = get_suite(suite).entries
    tasks = [dataclasses.replace(e, optimizers=(), target=None) for e in entries]
    of_all = Suite(suite, "learning rates", tuple(tasks))
    results = evaluate(
        of_all, specs, seeds=SEEDS, out_dir=out, resume=True, data_dir=data_dir
    )
    for task, summaries in results.summaries().items():
        reached = {
            s.records[0].config["optimizer"]["spec"]: (
                s.stopping.loss if s.stopping else s.final
            ).estimate
            for s in summaries
        }
        print(task)
        for template, rates in grids.items():
            losses = [reached[template.format(rate)] for rate in rates]
            best = losses.index(min(losses))
            edge = "  at the edge of the grid" if best in (0, len(rates) - 1) else ""
            shown = ", ".join(
                f"{r:g}: {x:.4g}" for r, x in zip(rates, losses, strict=True)
            )
            print(f"  {template.format(rates[best])}{edge}\n    {shown}")


if __name__ == "__main__":
    tyro.cli(sweep)
