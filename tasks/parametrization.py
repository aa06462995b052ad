"""Standard and maximal-update parametrization (muP) of a model.

A parametrization says how the initialisation, the forward pass and the updates change
with the width of a model. Under muP every pre-activation moves equally far in a step at
every width, so that what was tuned or learned at a small width holds at a large one.

Source: Yang et al., Tensor Programs V (arXiv 2203.03466); for learned optimizers
Thérien et al. (arXiv 2406.00153).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.nn.initializers import Initializer

from tasks.checks import check_counts, check_known, check_numbers
from tasks.roles import Role, width_multipliers
from tasks.specs import parse_call

Tree = Any


@dataclasses.dataclass(frozen=True)
class Parametrization:
    """The powers of the width that a model follows; the defaults are the standard ones.

    Each rule of muP is one field, so that `dataclasses.replace` leaves out one of them.
    A fan-in is the number of inputs of a unit, "base" that of the same unit in the base
    model, and 1 for `base_width=1`, which makes all factors absolute.

    Attributes:
      init_exponent: a weight starts with the standard deviation
        fan_in ** -init_exponent before it is truncated at two of them, and a bias with
        N(0, 1), as its fan-in is 1; `None` leaves both to the model.
      output_exponent: the logits x @ W + b are multiplied by
        output_multiplier * (base / fan_in) ** output_exponent.
      attention_exponent: queries times keys are multiplied by
        head_size ** -attention_exponent.
      update_exponent: an entrywise-normalised update (of Adam, of a learned optimizer)
        of a hidden matrix is multiplied by
        hidden_learning_rate_multiplier * (base / fan_in) ** update_exponent.
      zero_readout: the matrix before the logits starts at zero, so that networks of
        all widths start from the same function.
      input_multiplier: the first layer's x @ W + b is multiplied by it; in a
        transformer the sum of all embeddings, positions and class token included.
      output_multiplier: see `output_exponent`.
      hidden_learning_rate_multiplier: see `update_exponent`.
      base_width: the width of the base model, at which nothing but their multipliers
        scales logits and updates. 1 means that there is none and every base fan-in is
        1, also where a model of that width would have another.

    Raises:
      ValueError: a field is of another type or out of range, or `base_width` is given
        while no rule depends on it.

    Example:
      >>> mup = resolve_parametrization("mup")
      >>> mup.output_scale(width=128)
      0.0078125
      >>> dataclasses.replace(mup, output_exponent=0.0).output_scale(width=128)
      1.0
    """

    init_exponent: float | None = None
    output_exponent: float = 0.0
    attention_exponent: float = 0.5
    update_exponent: float = 0.0
    zero_readout: bool = False
    input_multiplier: float = 1.0
    output_multiplier: float = 1.0
    hidden_learning_rate_multiplier: float = 1.0
    base_width: int = 1

    def __post_init__(self):
        check_counts(base_width=self.base_width)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_multiplier"):
                check_numbers(above=0, **{field.name: value})
            elif field.name.endswith("_exponent"):
                left_to_model = field.name == "init_exponent" and value is None
                check_numbers(**{} if left_to_model else {field.name: value})
        if not isinstance(self.zero_readout, bool):
            raise ValueError(
                f"zero_readout must be True or False, got {self.zero_readout!r}"
            )
        if self.base_width > 1 and self.output_exponent == self.update_exponent == 0:
            raise ValueError(
                f"base_width={self.base_width} changes nothing in standard "
                "parametrization; leave it out, or choose parametrization='mup'"
            )

    @property
    def metadata(self) -> dict[str, Any]:
        """What identifies it in a record: nothing for the standard one."""
        if self == STANDARD:
            return {}
        return {"parametrization": dataclasses.asdict(self)}

    def check_width(self, width: int) -> None:
        """Raises `ValueError` if the base model is wider than the model."""
        if self.base_width > width:
            raise ValueError(
                f"base_width={self.base_width} is larger than width={width}; the base "
                "model must be the narrowest one"
            )

    def initializer(self, fan_in: int, standard: Initializer) -> Initializer:
        """How a weight of that fan-in starts; `standard` where the model decides."""
        if self.init_exponent is None:
            return standard
        return jax.nn.initializers.truncated_normal(fan_in**-self.init_exponent)

    def bias_initializer(self, standard: Initializer) -> Initializer:
        """How a bias starts; `standard` where the model decides."""
        if self.init_exponent is None:
            return standard
        return jax.nn.initializers.normal(1.0)

    def readout_initializer(self, fan_in: int, standard: Initializer) -> Initializer:
        """How the matrix before the logits starts."""
        if self.zero_readout:
            return jax.nn.initializers.zeros
        return self.initializer(fan_in, standard)

    def output_scale(self, width: int) -> float:
        """The factor of the logits, where the readout's fan-in is the width."""
        return self.output_multiplier * (self.base_width / width) ** (
            self.output_exponent
        )

    def attention_scale(self, head_size: int) -> float:
        """The factor of the attention logits."""
        return head_size**-self.attention_exponent

    def scaling(
        self,
        shapes_at: Callable[[int], Tree],
        width: int,
        *,
        fan_in_axes: Mapping[str, tuple[int, ...]] | None = None,
        overrides: Mapping[str, Role] | None = None,
    ) -> dict[str, Any]:
        """The fields of a `Task` that optimizers read.

        Args:
          shapes_at: `width -> tree of shapes` of the model's parameters, such as a
            `jax.eval_shape` of its `init`; called at this width, twice this width and,
            unless it is 1, the base width.
          width: that of the model.
          fan_in_axes: see `width_multipliers`.
          overrides: see `width_multipliers`.

        Returns:
          `width_multipliers` and `width_ratio`; `None` and 1.0 where updates stay as
          they are.

        Raises:
          ValueError: as `check_width` and `width_multipliers`.
        """
        self.check_width(width)
        if self.update_exponent == 0 and self.hidden_learning_rate_multiplier == 1:
            return {"width_multipliers": None, "width_ratio": 1.0}
        try:
            base = shapes_at(self.base_width) if self.base_width > 1 else None
        except ValueError as e:
            raise ValueError(f"base_width={self.base_width}: {e}") from e
        multipliers = width_multipliers(
            shapes_at(width),
            shapes_at(2 * width),
            base,
            exponent=self.update_exponent,
            hidden_learning_rate_multiplier=self.hidden_learning_rate_multiplier,
            fan_in_axes=fan_in_axes,
            overrides=overrides,
        )
        ratio = (width / self.base_width) ** self.update_exponent
        return {"width_multipliers": multipliers, "width_ratio": ratio}


STANDARD = Parametrization()
MAXIMAL_UPDATE = Parametrization(
    init_exponent=0.5,
    output_exponent=1.0,
    attention_exponent=1.0,
    update_exponent=1.0,
    zero_readout=True,
)
PARAMETRIZATIONS = {"sp": STANDARD, "mup": MAXIMAL_UPDATE}


def resolve_parametrization(
    which: str | Parametrization, base_width: int | None = None
) -> Parametrization:
    """The parametrization that a task is asked for.

    Args:
      which: `"sp"`, `"mup"`, either with fields to replace, such as
        `"mup(output_multiplier=32.0)"`, or a `Parametrization`.
      base_width: replaces that of `which`.

    Raises:
      ValueError: the name, a field or its value is not allowed.

    Example:
      >>> resolve_parametrization("mup(output_multiplier=32.0)", base_width=64) == (
      ...     dataclasses.replace(MAXIMAL_UPDATE, output_multiplier=32.0, base_width=64)
      ... )
      True
    """
    changes: dict[str, Any] = {}
    if isinstance(which, Parametrization):
        made = which
    elif not isinstance(which, str):
        raise ValueError(
            f"parametrization must be a name or a Parametrization, got {which!r}"
        )
    else:
        call = parse_call("parametrization", which)
        check_known("parametrization", call.target, PARAMETRIZATIONS)
        fields = list(inspect.signature(Parametrization).parameters)
        for name in call.kwargs:
            check_known("parametrization field", name, fields)
        if call.args:
            raise ValueError(f"parametrization {which!r}: name the field of each value")
        made, changes = PARAMETRIZATIONS[call.target], dict(call.kwargs)
    if base_width is not None:
        changes["base_width"] = base_width
    return dataclasses.replace(made, **changes)


def describe(fields: Mapping[str, Any] | None) -> str:
    """What `resolve_parametrization` would be asked for, from a task's metadata.

    Args:
      fields: those of a `Parametrization`, as in `Parametrization.metadata`; `None` for
        the standard one.

    Example:
      >>> describe(None), describe(dataclasses.asdict(MAXIMAL_UPDATE))
      ('sp', 'mup')
      >>> faster = dataclasses.replace(MAXIMAL_UPDATE, output_multiplier=4.0)
      >>> describe(dataclasses.asdict(faster))
      'mup(output_multiplier=4.0)'
    """
    changes = {
        name: {k: v for k, v in (fields or {}).items() if v != getattr(known, k, None)}
        for name, known in PARAMETRIZATIONS.items()
    }
    nearest = min(changes, key=lambda name: len(changes[name]))
    given = ", ".join(f"{k}={v!r}" for k, v in changes[nearest].items())
    return f"{nearest}({given})" if given else nearest
