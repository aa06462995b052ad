"""Learned optimizers that are published, and what their files do not say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Variant(NamedTuple):
    """One optimizer among those whose files look alike.

    Attributes:
      kind: of architecture.
      architecture: options of it other than sizes, where they are not the defaults.
      title: for people.
    """

    kind: str
    architecture: Mapping[str, Any]
    title: str


class Published(NamedTuple):
    """One entry of the catalogue.

    Attributes:
      repo: on the Hugging Face Hub.
      variant: what it is, a key of `VARIANTS`.
      file: the file in it.
      licence: as stated there.
      sha256: of the file, where that is known.
    """

    repo: str
    variant: str
    file: str
    licence: str
    sha256: str | None = None


VARIANTS = {
    "mulo": Variant("small_fc", {"parametrization": "mup"}, "muLO, small_fc in muP"),
    "elo": Variant(
        "small_fc",
        {"parametrization": "sp", "step_multiplier": 1.0, "nan_to_zero": True},
        "ELO, small_fc with a learning rate",
    ),
    "small_fc": Variant("small_fc", {"parametrization": "sp"}, "google's small_fc"),
    "velo": Variant("velo", {}, "VeLO"),
    "celo": Variant("celo", {}, "Celo"),
    "celo-adam": Variant("learned_schedule", {}, "Celo-Adam, a schedule for Adam"),
    "celo2": Variant("celo2", {"orthogonalize": True}, "Celo2"),
    "celo2-base": Variant("celo2", {"orthogonalize": False}, "Celo2-base"),
    "elo-celo2": Variant(
        "celo2",
        {"orthogonalize": True, "weight_decay": 0.1, "clip_norm": 1.0},
        "ELO-CELO2, Celo2 with other weights",
    ),
}

# What files of this kind may be, the likeliest first.
POSSIBLE = {
    ("small_fc", "safetensors"): ("mulo", "elo"),
    ("small_fc", "msgpack"): ("small_fc", "mulo"),
    ("velo", "safetensors"): ("velo",),
    ("velo", "msgpack"): ("velo",),
    ("celo", "msgpack"): ("celo",),
    ("learned_schedule", "msgpack"): ("celo-adam",),
    ("celo2", "safetensors"): ("celo2", "elo-celo2", "celo2-base"),
    ("celo2", "msgpack"): ("celo2", "celo2-base"),
}

# Offsets of the decays are not in files of PyTorch; ELO has none.
DECAYS = ("momentum_decays", "rms_decays", "adafactor_decays")
OFFSETS = {
    "mulo": {
        "momentum_decays": (0.15216392, 0.14245212, 0.06812963),
        "rms_decays": (0.01079706,),
        "adafactor_decays": (0.18621896, -0.10864615, -0.06185547),
    },
    "elo": {
        "momentum_decays": (0.0, 0.0, 0.0),
        "rms_decays": (0.0,),
        "adafactor_decays": (0.0, 0.0, 0.0),
    },
}
BASE_DECAYS = {
    "momentum_decays": (0.9, 0.99, 0.999),
    "rms_decays": (0.999,),
    "adafactor_decays": (0.9, 0.99, 0.999),
}
# Where they are constants: of momenta, second moments, factored second moments.
FIXED_DECAYS = {
    "velo": BASE_DECAYS,
    "celo": BASE_DECAYS,
    "celo2": {**BASE_DECAYS, "rms_decays": (0.95,)},
    "learned_schedule": {"momentum_decays": (0.9,), "rms_decays": (0.999,)},
}

_PORT = "Apache-2.0 in the metadata of the port's classes, none stated on its page"
_GOOGLE = "weights by google, whose code is under Apache-2.0"
PUBLISHED = (
    Published(
        "btherien/mulo",
        "mulo",
        "model.safetensors",
        "Apache-2.0",
        "ad7c499d1bd389c768f20019a6e1a423c51c7d1db64774d038f4fe56bf21ccb3",
    ),
    Published("DiamondXL/elo", "elo", "model.safetensors", _PORT),
    Published(
        "DiamondXL/celo2",
        "celo2",
        "model.safetensors",
        f"{_PORT}; the original weights are under MIT",
    ),
    Published("DiamondXL/elo-celo2", "elo-celo2", "model.safetensors", _PORT),
    Published("Pauljanson002/VeLO_RNN", "velo", "model.safetensors", "Apache-2.0"),
    Published("Pauljanson002/VeLO_MLP", "velo", "model.safetensors", "Apache-2.0"),
    Published("amoudgl/celo2", "celo2", "theta.state", "MIT"),
    Published("amoudgl/celo2-base", "celo2-base", "theta.state", "MIT"),
    Published(
        "amoudgl/celo",
        "celo",
        "theta.state",
        "MIT",
        "35683c6123069c101d62ec1f8b2e6d70d50a43e67ebe09953b27620a7dcb836b",
    ),
    Published(
        "amoudgl/celo-adam",
        "celo-adam",
        "theta.state",
        "MIT",
        "99c65fa0218a739c32eac4e8a99523b6fed92e2926d0c5d64e83835637b75d38",
    ),
    Published("amoudgl/velo-4000", "velo", "theta.state", _GOOGLE),
)


def by_hash(sha256: str) -> Published | None:
    """The entry whose file has this hash."""
    return next((entry for entry in PUBLISHED if entry.sha256 == sha256), None)


def by_repo(repo: str) -> Published | None:
    """The entry of a repository."""
    return next((entry for entry in PUBLISHED if entry.repo == repo), None)


def repos_of(variant: str, file: str) -> list[str]:
    """Where files of a variant are published under that name."""
    return [e.repo for e in PUBLISHED if (e.variant, e.file) == (variant, file)]


def effective_decays(offsets: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The decay clip(1 - (1 - d) exp(10 o), 0, 1) of every base value d and offset o.

    Example:
      >>> [round(d, 4) for d in effective_decays(OFFSETS["mulo"])["momentum_decays"]]
      [0.542, 0.9584, 0.998]
    """

    def decay(base, offset):
        return min(max(1 - (1 - base) * math.exp(min(10 * offset, 700)), 0.0), 1.0)

    return {
        name: list(map(decay, BASE_DECAYS[name], offsets[name])) for name in BASE_DECAYS
    }
