"""The options of MetaAdamW: two presets, checks, and what follows from them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from mada_optax import domains

FEATURES = ("basic", "norm_basic", "basic_plus", "norm_basic_plus", "enhanced")
OBJECTIVES = ("gradient", "loss_decrease", "gen_gap", "combined")
TASK_TYPES = ("regression", "classification")

# What may be asked of a base group beside the arguments of the same name.
PER_GROUP = ("learning_rate", "weight_decay", "b1", "b2", "eps")

# What the authors' released code does, where the defaults below do something else.
RELEASED: Mapping[str, Any] = {
    "groups": "original",
    "depth_from_suffix": False,
    "use_v_norms": False,
    "feature_dim": 8,
    "plus_features": "released",
    "gate_position": "before",
    "train_gates": False,
    "beta_gradient": False,
    "decay_scaling": "bias_corrected",
    "meta_objective": "gradient",
    "use_huw": False,
    "huw_log_var_bounds": (-math.inf, math.inf),
    "paired_rng": False,
}
PRESETS: Mapping[str, Mapping[str, Any]] = {"default": {}, "released": RELEASED}

_CHOICES: Mapping[str, Sequence[Any]] = {
    "features": FEATURES,
    "plus_features": ("documented", "released"),
    "gate_position": ("after", "before"),
    "feature_transform": ("none", "log1p"),
    "head_init": ("xavier", "zero"),
    "decay_scaling": ("lr", "bias_corrected"),
    "virtual_step": ("reuse", "advance"),
    "meta_feature_grad": ("last_step", "batch1"),
    "lambda_mode": ("learned", "fixed"),
    "meta_objective": OBJECTIVES,
    "gap_at": ("theta", "theta_prime"),
    "meta_reg": ("norm", "squared"),
    "huw_classification": ("doubled", "kendall"),
    **dict.fromkeys(
        (
            *("include_time_step", "use_v_norms", "use_feature_gating", "final_norm"),
            *("beta_gradient", "train_gates", "use_huw", "paired_rng"),
            "depth_from_suffix",
        ),
        (True, False),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The checked arguments of `meta_adamw`, which documents them."""

    learning_rate: optax.ScalarOrSchedule
    b1: jax.typing.ArrayLike = 0.9
    b2: jax.typing.ArrayLike = 0.999
    eps: jax.typing.ArrayLike = 1e-8
    weight_decay: jax.typing.ArrayLike = 1e-2
    mask: Any = None
    base_labels: Any = None
    base_groups: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    groups: Any = "fine_grained"
    depth_from_suffix: bool = True
    features: str = "basic"
    feature_dim: Any = "auto"
    use_v_norms: bool = True
    include_time_step: bool = True
    num_steps: Any = None
    group_embed_dim: int = 4
    feature_transform: str = "none"
    plus_features: str = "documented"
    use_feature_gating: bool = False
    gate_position: str = "after"
    train_gates: bool = True
    gating_sparsity: jax.typing.ArrayLike = 1e-4
    attn_layers: int = 2
    attn_heads: int = 4
    attn_hidden_dim: int = 32
    final_norm: bool = False
    head_init: str = "xavier"
    alpha_range: jax.typing.ArrayLike = 1.0
    beta_range: jax.typing.ArrayLike = 1.0
    seed: Any = 0
    decay_scaling: str = "lr"
    meta_every: int = 100
    meta_objective: str = "combined"
    objective_weights: Sequence[jax.typing.ArrayLike] = (1.0, 1.0, 1.0)
    use_huw: bool = True
    huw_priorities: Sequence[jax.typing.ArrayLike] = (1.0, 1.0, 1.0)
    huw_task_types: Sequence[str] = ("regression",) * 3
    huw_classification: str = "doubled"
    huw_log_var_bounds: tuple[float, float] = (-5.0, 5.0)
    lambda_mode: str = "learned"
    lambda_values: Sequence[jax.typing.ArrayLike] = (1.0, 1.0)
    virtual_step: str = "reuse"
    meta_feature_grad: str = "last_step"
    beta_gradient: bool = True
    gap_at: str = "theta"
    paired_rng: bool = True
    meta_weight_decay: jax.typing.ArrayLike = 1e-4
    meta_reg: str = "norm"
    meta_learning_rate: optax.ScalarOrSchedule = 1e-4
    meta_optimizer: optax.GradientTransformation | None = None
    meta_clip: jax.typing.ArrayLike | None = None

    def __post_init__(self):
        for name, allowed in _CHOICES.items():
            domains.check_option(name, getattr(self, name), allowed)
        for name in ("attn_layers", "attn_heads", "attn_hidden_dim", "group_embed_dim"):
            _check_count(name, getattr(self, name))
        for name in ("alpha_range", "beta_range"):
            domains.check_number(name, getattr(self, name))
            number = domains.concrete(getattr(self, name))
            if number is not None and number > 2:
                raise ValueError(
                    f"{name} must be in [0, 2], got {number}: with a larger one a "
                    "factor could be negative."
                )
        for name in ("gating_sparsity", "meta_weight_decay", "meta_every"):
            domains.check_number(name, getattr(self, name))
        for name in ("num_steps", "meta_clip"):
            if getattr(self, name) is not None:
                domains.check_number(name, getattr(self, name), strict=True)
        domains.check_learning_rate(self.meta_learning_rate)
        self._check_base_groups()
        self._check_objective()
        self._check_dim()

    def _check_base_groups(self):
        for group in ("", *self.base_groups):
            if group:
                names = self.base_groups[group]
                domains.check_names(f"base_groups[{group!r}]", names, PER_GROUP)
            base = self.base(group)
            domains.check_learning_rate(base["learning_rate"])
            for name in ("b1", "b2"):
                domains.check_decay(name, base[name])
            for name in ("eps", "weight_decay"):
                domains.check_number(name, base[name])
        if self.base_groups and self.base_labels is None:
            raise ValueError(
                "base_groups needs base_labels, which say what belongs to "
                f"{', '.join(map(repr, self.base_groups))}."
            )
        if isinstance(self.groups, str):
            names = ("fine_grained", "original")
            domains.check_option("groups", self.groups, names)

    def _check_objective(self):
        for name, length in {
            "objective_weights": 3,
            "huw_priorities": 3,
            "huw_task_types": 3,
            "lambda_values": 2,
            "huw_log_var_bounds": 2,
        }.items():
            if len(getattr(self, name)) != length:
                raise ValueError(
                    f"{name} must have {length} entries, got {getattr(self, name)!r}."
                )
        for priority in self.huw_priorities:
            domains.check_number("huw_priorities", priority, strict=True)
        for kind in self.huw_task_types:
            domains.check_option("huw_task_types", kind, TASK_TYPES)
        lower, upper = self.huw_log_var_bounds
        if not lower <= 0 <= upper:
            raise ValueError(
                "huw_log_var_bounds must be (lower, upper) around 0, where the "
                f"log-variances start, got {self.huw_log_var_bounds!r}."
            )

    def _check_dim(self):
        if self.feature_dim != "auto":
            _check_count("feature_dim", self.feature_dim)
        if self.is_basic and self.dim < self.length:
            raise ValueError(
                f"feature_dim={self.feature_dim} is too small for "
                f"features={self.features!r}, which has {self.length} columns: pass "
                f'feature_dim="auto" or at least {self.length}.'
            )
        if not self.is_basic and self.dim <= self.group_embed_dim:
            raise ValueError(
                f"feature_dim={self.feature_dim} leaves no room beside "
                f"group_embed_dim={self.group_embed_dim}."
            )

    def base(self, group: str) -> dict[str, Any]:
        """Learning rate, weight decay, b1, b2 and eps of a base group."""
        own = self.base_groups.get(group, {})
        return {name: own.get(name, getattr(self, name)) for name in PER_GROUP}

    @property
    def has_spreads(self) -> bool:
        """Whether rows hold standard deviations beside means."""
        return self.features in ("basic_plus", "norm_basic_plus")

    @property
    def is_basic(self) -> bool:
        """Whether rows are of norms and cosines, rather than those of `enhanced`."""
        mislaid = self.has_spreads and self.plus_features == "released"
        return self.features != "enhanced" and not mislaid

    @property
    def has_embeddings(self) -> bool:
        """Whether every group has a learned embedding."""
        return self.features == "enhanced"

    @property
    def has_log_vars(self) -> bool:
        """Whether the terms of the objective are weighted by their uncertainty."""
        return self.meta_objective == "combined" and self.use_huw

    @property
    def _num_letters(self) -> int:
        return 4 + self.use_v_norms

    @property
    def length(self) -> int:
        """Columns before padding."""
        if not self.is_basic:
            return 9 + self.include_time_step + self.group_embed_dim
        return self._num_letters * (1 + self.has_spreads) + self.include_time_step

    @property
    def dim(self) -> int:
        """Columns D of the encoder, a multiple of the number of heads."""
        least = self.length if self.feature_dim == "auto" else self.feature_dim
        return -(-least // self.attn_heads) * self.attn_heads

    @property
    def num_standardized(self) -> int:
        """How many of the first columns are standardized across groups."""
        if not self.features.startswith("norm_"):
            return 0
        return self._num_letters * (1 + self.has_spreads)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def choose(preset: str, given: Mapping[str, Any]) -> Options:
    """The options of a preset, but for what is given; `None` means not given."""
    domains.check_option("preset", preset, tuple(PRESETS))
    given = {name: value for name, value in given.items() if value is not None}
    if "meta_optimizer" in given and "meta_learning_rate" in given:
        raise ValueError(
            "meta_learning_rate is that of the default meta_optimizer, SGD; pass one "
            "of the two."
        )
    return Options(**{**PRESETS[preset], **given})
