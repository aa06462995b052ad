"""Any pretrained learned optimizer, ready to use."""

import os
from collections.abc import Mapping
from typing import Any

import optax

from lopt import kinds
from lopt.learned_schedule import celo_adam
from lopt.weights import load_pretrained

_USUAL_RATES = {
    "celo2": "usual is the peak of a schedule, some 3e-4 for language models",
    "elo": "usual is 1e-3",
}


def from_pretrained(
    path_or_name: str | os.PathLike,
    *,
    variant: str | None = None,
    num_steps: int | None = None,
    learning_rate: optax.ScalarOrSchedule | None = None,
    width_multipliers: Any = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """A pretrained learned optimizer of any kind as an Optax transformation.

    Its updates are what to add. Those of VeLO, Celo and Celo-Adam take the loss:
    `tx.update(grads, state, params, value=loss)`.

    Args:
      path_or_name: see `load_pretrained`.
      variant: which optimizer the file holds, if several look alike and it does not say
        so: see `load_pretrained`.
      num_steps: how often `update` will be called; needed by VeLO, Celo and Celo-Adam,
        and of no interest to the others.
      learning_rate: a number or a schedule; needed by Celo2 and ELO, optional for
        Celo-Adam, and not taken by the others.
      width_multipliers: a tree like the parameters, as `Task.width_multipliers`; `None`
        for a task in standard parametrization.
      **options: of the architecture, in place of those in the file, such as
        `weight_decay=0.1` for Celo2.

    Raises:
      ValueError: weights that cannot be read, or may be of several optimizers; or an
        argument is missing, unknown or not allowed.

    Examples:
      >>> import lopt
      >>> tx = lopt.from_pretrained("mulo_s")
    """
    theta, metadata = load_pretrained(path_or_name, variant=variant)
    name = repr(os.fspath(path_or_name))
    _check_decided(name, metadata)
    kind = metadata["kind"]
    harness = "elo" if metadata["variant"] == "elo" else kind
    _check_learning_rate(name, harness, learning_rate)
    run: dict[str, Any] = {}
    if "num_steps" in kinds.lookup(kind).run:
        if num_steps is None:
            raise ValueError(f"{name} is {kind}, which needs num_steps=.")
        run["num_steps"] = num_steps
    if kind == "celo2":
        run["learning_rate"] = learning_rate
    decay = options.pop("weight_decay", 0.0) if harness == "elo" else 0.0
    architecture = kinds.build(metadata["architecture"], **run, **options)
    transform = architecture.transform(theta, width_multipliers=width_multipliers)
    if harness == "elo":
        decayed = optax.add_decayed_weights(-decay)
        rate = optax.scale_by_learning_rate(learning_rate, flip_sign=False)
        return optax.chain(transform, decayed, rate)
    if kind == "learned_schedule":
        return celo_adam(
            theta,
            architecture.num_steps,
            1e-3 if learning_rate is None else learning_rate,
            hidden_size=architecture.hidden_size,
            width_multipliers=width_multipliers,
        )
    return transform


def _check_decided(name: str, metadata: Mapping[str, Any]) -> None:
    if "undecided" in metadata:
        allowed = ", ".join(map(repr, metadata["undecided"]))
        raise ValueError(
            f"{name} does not say which optimizer it is, and files of several look "
            f"like it: give variant=, one of {allowed}."
        )
    if metadata["kind"] is None:
        raise ValueError(f"{name} holds no learned optimizer that lopt knows.")


def _check_learning_rate(name: str, harness: str, learning_rate: Any) -> None:
    if learning_rate is None and harness in _USUAL_RATES:
        raise ValueError(
            f"{name} is {harness}, which needs learning_rate=; {_USUAL_RATES[harness]}."
        )
    if learning_rate is not None and harness not in (*_USUAL_RATES, "learned_schedule"):
        raise ValueError(
            f"learning_rate is {learning_rate!r}, but {name} is {harness}, which has "
            "none: leave it out."
        )
