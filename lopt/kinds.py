"""Architectures by the name that files have for them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A class of learned optimizers.

    Attributes:
      module: where it is.
      name: of the class.
      run: its fields that belong to a run, and so not to weights.
    """

    module: str
    name: str
    run: tuple[str, ...] = ()


KINDS = {
    "small_fc": Kind("lopt.small_fc", "SmallFC"),
    "velo": Kind("lopt.velo", "VeLO", ("num_steps",)),
    "celo": Kind("lopt.celo", "Celo", ("num_steps",)),
    "learned_schedule": Kind(
        "lopt.learned_schedule", "LearnedSchedule", ("num_steps",)
    ),
    "celo2": Kind(
        "lopt.celo2",
        "Celo2",
        ("learning_rate", "label_fn", "adam_bias_correction", "reshape"),
    ),
}


def describe(architecture: Any) -> dict[str, Any]:
    """What a file says about an architecture: its kind, and its fields.

    Args:
      architecture: a dataclass; fields that belong to a run are left out.

    Example:
      >>> import lopt
      >>> describe(lopt.small_fc(hidden_size=4))["kind"]
      'small_fc'
    """
    fields = {
        field.name: getattr(architecture, field.name)
        for field in dataclasses.fields(architecture)
    }
    names = type(architecture).__module__, type(architecture).__name__
    for kind, known in KINDS.items():
        if names == known[:2]:
            fields = {k: v for k, v in fields.items() if k not in known.run}
            return {"kind": kind, **fields}
    return fields


def build(description: Mapping[str, Any], **run: Any) -> Any:
    """The architecture that a file describes.

    Args:
      description: as of `describe`; without a kind it is that of small_fc.
      **run: further fields, and others to replace.

    Raises:
      ValueError: no such kind or field, or a value that is not allowed.
    """
    if not isinstance(description, Mapping):
        raise ValueError(f"the architecture is {description!r}, which is not a dict")
    given = {**description, **run}
    kind = given.pop("kind", "small_fc")
    known = lookup(kind)
    architecture = getattr(importlib.import_module(known.module), known.name)
    fields = [field.name for field in dataclasses.fields(architecture)]
    for name in given:
        if name not in fields:
            raise ValueError(
                f"{kind} has no option {name!r}; there are {', '.join(fields)}"
            )
    return architecture(**given)


def lookup(kind: str) -> Kind:
    """What is known of a kind.

    Raises:
      ValueError: nothing is.
    """
    if kind not in KINDS:
        raise ValueError(
            f"the kind of learned optimizer is {kind!r}, which this version of lopt "
            f"does not know; it knows {', '.join(KINDS)}"
        )
    return KINDS[kind]
