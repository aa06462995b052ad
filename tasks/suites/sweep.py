"""The sweep that chose the learning rates of a suite.

`python -m tasks.suites.sweep` runs it and prints what won. Every optimizer gets five
learning rates, half a decade apart, and two seeds that the suite does not use.
"""

from __future__ import annotations

import pathlib

import tyro

from tasks.search import Space
from tasks.tuning import tune

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
    spaces = [
        Space(spec.replace("{}", "{rate}"), {"rate": RATES.get(spec, _ADAM_LIKE)})
        for spec in optimizers
    ]
    for task, winners in tune(suite, spaces, out_dir=out, data_dir=data_dir).items():
        print(task)
        for winner in winners:
            edge = "  at the edge of the grid" if winner.at_edge else ""
            shown = ", ".join(f"{x:.4g}" for x in winner.losses.values())
            print(f"  {winner.spec}{edge}\n    {shown}")


if __name__ == "__main__":
    tyro.cli(sweep)
