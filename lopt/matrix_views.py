"""Which matrices a leaf of the parameters is: its last two axes, or another shape."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

Reshape = Literal["merge"] | Callable[[str, tuple[int, ...]], Sequence[int] | None]


def check_reshape(reshape: Reshape | None) -> None:
    """Raises `ValueError` unless `reshape` is what `view_shape` takes."""
    if not (reshape in (None, "merge") or callable(reshape)):
        raise ValueError(
            f"reshape is {reshape!r}; it must be None, 'merge', or a function of the "
            "path and the shape of a leaf."
        )


def view_shape(
    reshape: Reshape | None, path: tuple[Any, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape in which the last two axes of a leaf are those of matrices.

    Args:
      reshape: `None`, with which an axis triple is refused; "merge", which joins the
        last two of three axes; or a function of the path of a leaf, such as
        "attention/out/kernel", and its shape, that gives the shape, in which one
        length may be -1, or `None` to leave the leaf as it is.
      path: of the leaf, as JAX gives it.
      shape: of the leaf.

    Raises:
      ValueError: three axes and no choice, or a shape that does not fit.

    Example:
      >>> query = (jax.tree_util.DictKey("query"),)
      >>> view_shape("merge", query, (64, 4, 16))
      (64, 64)
      >>> view_shape(lambda path, shape: (-1, shape[-1]), query, (4, 16, 64))
      (64, 64)
    """
    if len(shape) < 2:
        return shape
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if callable(reshape):
        chosen = reshape(name, shape)
        return shape if chosen is None else _resolved(tuple(chosen), name, shape)
    if len(shape) != 3:
        return shape
    merged = shape[0], math.prod(shape[1:])
    if reshape == "merge":
        return merged
    raise ValueError(
        f"the parameter {name!r} of shape {shape} has 3 axes, and which of them make a "
        f"matrix is not known: give reshape='merge' for {merged}, or a function "
        "reshape=lambda path, shape: ... that gives its shape, which is `shape` itself "
        "where the first axis counts matrices."
    )


def _resolved(chosen, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    known = -math.prod(chosen) if -1 in chosen else math.prod(chosen)
    if -1 in chosen and known > 0 and math.prod(shape) % known == 0:
        free = math.prod(shape) // known
        chosen = tuple(free if length == -1 else length for length in chosen)
    if len(chosen) < 2 or min(chosen) < 0 or math.prod(chosen) != math.prod(shape):
        raise ValueError(
            f"reshape gives {chosen} for the parameter {name!r} of shape {shape}; it "
            "must be a shape of as many numbers, with at least 2 axes."
        )
    return chosen
