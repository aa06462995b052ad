"""`python -m lopt inspect FILE`: what a file of meta-parameters is."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from lopt import kinds
from lopt.weights import load_pretrained


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Says what a file of meta-parameters is, and how to use it."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Path of a file or folder, name of weights in this package, or org/repo."""
    variant: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which optimizer it is, if files of several look alike."""


def inspect(arguments: Sequence[str]) -> None:
    """The command line after `inspect`; ends with status 2 for a file of no use."""
    parsed = tyro.cli(Arguments, prog="python -m lopt inspect", args=arguments)
    try:
        metadata = load_pretrained(parsed.file, variant=parsed.variant).metadata
        lines = list(_lines(parsed.file, metadata))
    except ValueError as e:
        print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    for name, value in lines:
        print(f"{name:<17} {value}")


def _lines(file: str, metadata: Mapping[str, Any]):
    architecture = dict(metadata.get("architecture", {}))
    yield "file", f"{file} ({metadata['format']}, {_each(metadata['bytes'])} bytes)"
    yield "sha256", _each(metadata["sha256"])
    yield "kind", metadata["kind"] or "unknown"
    yield "variant", metadata["variant"] or "none of the published ones"
    architecture.pop("kind", None)
    yield "architecture", _options(architecture) or "default options"
    yield "sizes", _options(metadata["sizes"]) or "fixed"
    yield "parameters", metadata["num_parameters"]
    for name, values in metadata.get("decays", {}).items():
        yield name.replace("_", " "), "  ".join(f"{value:.7g}" for value in values)
    yield "licence", metadata["licence"]
    yield "source", metadata["source"]
    for text in metadata["assumed"]:
        yield "assumed", text
    yield "to use it", _call(file, metadata)


def _call(file: str, metadata: Mapping[str, Any]) -> str:
    kind, variant = metadata["kind"], metadata["variant"]
    if kind is None:
        return f"lopt.load_pretrained({file!r}).theta"
    arguments = [repr(file)]
    if metadata["assumed"] and variant:
        arguments.append(f"variant={variant!r}")
    if "num_steps" in kinds.lookup(kind).run:
        arguments.append("num_steps=...")
    if kind == "celo2" or variant == "elo":
        arguments.append("learning_rate=...")
    if metadata["architecture"].get("parametrization") == "mup":
        arguments.append("width_multipliers=...")
    needs_loss = kind in ("velo", "celo", "learned_schedule")
    loss = "; update(..., value=loss)" if needs_loss else ""
    return f"lopt.from_pretrained({', '.join(arguments)}){loss}"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in options.items() if v is not None)


def _each(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    return str(value)
