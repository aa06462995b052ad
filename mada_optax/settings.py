"""The options of the MADA family: defaults, checks, and what follows from them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from mada_optax import domains, family
from mada_optax.descent import ByName, Descent, vector
from mada_optax.family import COEFFICIENTS, NEUTRAL, MadaHyperparams

FIELDS = MadaHyperparams._fields

# A fifth of the rates of the published GPT-2 runs, whose hypergradients come from one
# micro-batch in five.
HYPER_LEARNING_RATES: Mapping[str, float] = {
    "b1": 1e-4,
    "b2": 1e-4,
    "b3": 2e-2,
    "c": 2e-2,
    "rho": 2e-2,
    "gamma": 2e-2,
}

# What `compat="released"` sets, and to what.
RELEASED: Mapping[str, Any] = {
    "n_init": "grad_sq",
    "prev_grad_init": "zeros",
    "nu_init": 1e-15,
    "lion_betas": (0.931, 0.98),
    "update_order": "q_first",
    "detach_average": True,
    "debias_n": False,
}

Coefficient = optax.ScalarOrSchedule
Bounds = Mapping[str, tuple[float, float]]
Mask = Any | Callable[[optax.Params], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked arguments of `mada`, which documents them."""

    b1: Coefficient = 0.9
    b2: Coefficient = 0.95
    b3: Coefficient = 0.0
    c: Coefficient = 1.0
    rho: Coefficient = 1.0
    gamma: Coefficient = 1.0
    eps: jax.typing.ArrayLike = 1e-8
    weight_decay: jax.typing.ArrayLike | None = None
    mask: Mask | None = None
    hyper_learning_rate: ByName | None = None
    hyper_momentum: ByName = 0.0
    learn: Sequence[str] = COEFFICIENTS
    active: Sequence[str] | None = None
    bounds: Bounds | None = None
    hyper_clip: jax.typing.ArrayLike | None = 10.0
    hyper_warmup: jax.typing.ArrayLike = 0
    hyper_grad_scale: jax.typing.ArrayLike = 1.0
    clip_norm: jax.typing.ArrayLike | None = None
    lion_betas: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike] = (0.95, 0.98)
    nu_init: jax.typing.ArrayLike = 1e-15
    n_init: str = "zeros"
    prev_grad: str = "true"
    prev_grad_init: str = "first"
    bias_correction: bool = True
    debias_n: bool = False
    detach_average: bool | None = None
    update_order: str = "q_first"
    reparam: str | None = None
    compat: str | None = None
    box: Bounds = dataclasses.field(default_factory=lambda: domains.BOX)

    def __post_init__(self):
        self._apply_compat()
        domains.check_names("learn", self.learn, FIELDS)
        domains.check_names("active", self.active or (), COEFFICIENTS)
        for name in COEFFICIENTS:
            domains.check_coefficient(name, getattr(self, name))
            if callable(getattr(self, name)) and name in self.learn:
                raise ValueError(
                    f"{name} is a schedule, which cannot be learned as well: take "
                    f"{name!r} out of `learn` or pass a number."
                )
        if len(self.lion_betas) != 2:
            raise ValueError(f"lion_betas must be (b1, b2), got {self.lion_betas!r}.")
        for beta in self.lion_betas:
            domains.check_decay("lion_betas", beta)
        for name in ("eps", "nu_init", "hyper_warmup"):
            domains.check_number(name, getattr(self, name))
        domains.check_number("hyper_grad_scale", self.hyper_grad_scale, -math.inf)
        decay = domains.weight_decay_or_none(self.weight_decay)
        object.__setattr__(self, "weight_decay", decay)
        for name in ("hyper_clip", "clip_norm"):
            if getattr(self, name) is not None:
                domains.check_number(name, getattr(self, name), strict=True)
        for name in ("bias_correction", "debias_n"):
            domains.check_option(name, getattr(self, name), (True, False))
        domains.check_option("detach_average", self.detach_average, (None, True, False))
        domains.check_option("n_init", self.n_init, ("zeros", "grad_sq"))
        domains.check_option("prev_grad", self.prev_grad, ("true", "zero"))
        domains.check_option("prev_grad_init", self.prev_grad_init, ("first", "zeros"))
        domains.check_option("update_order", self.update_order, ("q_first", "x_first"))
        domains.check_option("reparam", self.reparam, (None, "tanh"))

    def _apply_compat(self):
        domains.check_option("compat", self.compat, (None, "released"))
        if self.compat is None:
            return
        for field in dataclasses.fields(self):
            if field.name not in RELEASED:
                continue
            value, wanted = getattr(self, field.name), RELEASED[field.name]
            if value not in (field.default, wanted):
                raise ValueError(
                    f'compat="released" sets {field.name}={wanted!r}, but '
                    f"{field.name}={value!r} was passed; leave one of them out."
                )
            object.__setattr__(self, field.name, wanted)

    @property
    def form(self) -> family.Form:
        """The branches that have to be computed."""
        kept = {*self.learn, *(self.active or ())}

        def fixed_at(name, value):
            given = getattr(self, name)
            return name not in kept and domains.is_static(given) and given == value

        off = {name for name, value in NEUTRAL.items() if fixed_at(name, value)}
        return family.Form(
            active=frozenset(COEFFICIENTS) - off,
            lion_only=fixed_at("gamma", 0),
            mean_only=fixed_at("rho", 0),
            eps=self.eps,
            lion_betas=self.lion_betas,
            bias_correction=self.bias_correction,
            debias_n=self.debias_n,
            detach_average=self.detach_average,
        )

    def descent(self, start: Mapping[str, Any]) -> Descent:
        """The rule by which the coefficients move away from `start`."""
        bounds = domains.resolve_bounds(self.bounds, self.box)
        tanh = self.reparam == "tanh"
        for name in self.learn:
            domains.check_start(name, start[name], bounds[name], interior=tanh)
        rates = self.hyper_learning_rate
        return Descent(
            learned=[name in self.learn for name in FIELDS],
            rate=vector(
                "hyper_learning_rate",
                HYPER_LEARNING_RATES if rates is None else rates,
                FIELDS,
                self.learn,
                HYPER_LEARNING_RATES,
            ),
            momentum=vector(
                "hyper_momentum",
                self.hyper_momentum,
                FIELDS,
                self.learn,
                dict.fromkeys(FIELDS, 0.0),
                domains.check_decay,
            ),
            bounds=[bounds[name] for name in FIELDS],
            clip=self.hyper_clip,
            scale=self.hyper_grad_scale,
            unconstrained=[tanh and name != "learning_rate" for name in FIELDS],
        )
