"""From the arrays in one or two files to those of one learned optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lopt.pretrained import layout
from lopt.pretrained.container import Container
from lopt.pretrained.layout import Layout, Sizes

# What a config.json says in repositories of the PyTorch layout.
_CONFIG = {
    "small_fc": {"input_size": 39, "hidden_layers": 1},
    "celo2": {"hidden_size": 8, "hidden_layers": 2, "output_size": 3},
}


class Assembled(NamedTuple):
    """A learned optimizer in files.

    Attributes:
      kind: of architecture; `None` for an npz of something else.
      format: "npz", "safetensors" or "msgpack".
      arrays: by canonical name, as far as they are in the files.
      sizes: of the architecture.
    """

    kind: str | None
    format: str
    arrays: dict[str, np.ndarray]
    sizes: Sizes


def assemble(
    contents: Mapping[str, Container], config: Mapping[str, Any] | None = None
) -> Assembled:
    """Checks names, shapes, dtypes and values, and gives canonical arrays.

    Args:
      contents: of one file, or of the two of VeLO, by file name.
      config: of the config.json beside it.

    Raises:
      ValueError: the files are not, or not all of, a learned optimizer.
    """
    name, first = next(iter(contents.items()))
    if first.format == "npz":
        return _ours(first)
    layouts = layout.GOOGLE if first.format == "msgpack" else layout.PYTORCH
    parts, arrays, sizes = {}, {}, {}
    for name, content in contents.items():
        try:
            part, sizes, wrong = layout.recognise(content.arrays, layouts)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}.") from error
        if wrong:
            raise ValueError(f"{name!r} is no {part.title}: {layout.first(wrong)}.")
        parts[name] = part
        arrays |= layout.to_canonical(content.arrays, part)
    kind = _common_kind(parts, layouts)
    if len(parts) > 1:
        sizes, wrong = layout.problems(arrays, layout.google(kind))
        if wrong:
            names = " and ".join(map(repr, parts))
            raise ValueError(f"{names} differ in size: {layout.first(wrong)}.")
    if config is not None:
        _check_config(config, kind, sizes, name)
    return Assembled(kind, first.format, arrays, sizes)


def _ours(content: Container) -> Assembled:
    try:
        part, sizes, wrong = layout.recognise(content.arrays, layout.GOOGLE)
    except ValueError:
        return Assembled(None, content.format, content.arrays, {})
    if wrong:
        return Assembled(None, content.format, content.arrays, {})
    return Assembled(part.kind, content.format, content.arrays, sizes)


def _common_kind(parts: Mapping[str, Layout], layouts: Sequence[Layout]) -> str:
    """The kind of which these are all parts."""
    kinds = {part.kind for part in parts.values()}
    whole = sorted(part.file for part in layouts if part.kind in kinds)
    if len(kinds) == 1 and sorted(part.file for part in parts.values()) == whole:
        return kinds.pop()
    found = "; ".join(f"{name!r} is {part.title}" for name, part in parts.items())
    if len(parts) == 1:
        raise ValueError(
            f"{found}, one of two parts: give the path of a folder that has both "
            f"{' and '.join(whole)}."
        )
    raise ValueError(
        f"{found}: these do not belong together; give the path of one file."
    )


def _check_config(
    config: Mapping[str, Any], kind: str, sizes: Sizes, name: str
) -> None:
    expected = dict(_CONFIG.get(kind, {}))
    if kind == "small_fc":
        expected["hidden_size"] = sizes["H"]
    for key, value in expected.items():
        if key in config and config[key] != value:
            raise ValueError(
                f"{name!r} has {key}={value}, but the config.json beside it says "
                f"{config[key]!r}."
            )
