"""The sweep that chose the learning rates of the default suite.

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
    out: pathlib.Path = pathlib.Path("runs/sweep"),
) -> None:
    """Prints, for every task and optimizer, the rate with the lowest final loss.

    Args:
      suite: the suite whose tasks and steps are used.
      out: directory of the records; an interrupted sweep goes on where it stopped.
    """
    specs = [spec.format(rate) for spec, rates in RATES.items() for rate in rates]
    entries = get_suite(suite).entries
    tasks = [dataclasses.replace(e, optimizers=(), target=None) for e in entries]
    of_all = Suite(suite, "learning rates", tuple(tasks))
    results = evaluate(of_all, specs, seeds=SEEDS, out_dir=out, resume=True)
    for task, summaries in results.summaries().items():
        final = {
            s.records[0].config["optimizer"]["spec"]: s.final.estimate
            for s in summaries
        }
        print(task)
        for template, rates in RATES.items():
            losses = [final[template.format(rate)] for rate in rates]
            best = losses.index(min(losses))
            edge = "  at the edge of the grid" if best in (0, len(rates) - 1) else ""
            shown = ", ".join(
                f"{r:g}: {x:.4g}" for r, x in zip(rates, losses, strict=True)
            )
            print(f"  {template.format(rates[best])}{edge}\n    {shown}")


if __name__ == "__main__":
    tyro.cli(sweep)
