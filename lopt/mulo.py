"""muLO: small_fc with weights that were meta-trained in muP, ready to use."""

import os
from typing import Any

import optax

from lopt import kinds
from lopt.weights import load_pretrained


def mulo(
    pretrained: str | os.PathLike = "mulo_m",
    *,
    width_multipliers: Any = None,
    clip_norm: float | None = None,
    nan_to_zero: bool | None = None,
    scale_eps: bool | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A pretrained small_fc as an Optax transformation, without a learning rate.

    The model must be in muP, and its width multipliers known: for a model that is not
    described by `width_multipliers`, hidden layers take steps that are too large by
    their fan-in.

    Args:
      pretrained: what `load_pretrained` takes: muLO, published or of this package, or
        its twin in standard parametrization.
      width_multipliers: a tree like the parameters, as `Task.width_multipliers` at base
        width 1: the fan-in of every hidden matrix, and 1 for everything else. `None`
        for a task in standard parametrization.
      clip_norm: global norm to clip gradients to; as in meta-training by default.
      nan_to_zero: whether NaN gradients become 0; as in meta-training by default.
      scale_eps: see `small_fc`; as in meta-training by default.

    Returns:
      A gradient transformation with state `SmallFCState`.

    Raises:
      ValueError: weights that cannot be read, or that are not those of small_fc.

    Examples:
      >>> import jax, lopt, tasks
      >>> task = tasks.get("digits-mlp", width=256, depth=3, parametrization="mup")
      >>> tx = lopt.mulo(width_multipliers=task.width_multipliers)
      >>> params, _ = task.init(jax.random.key(0))
      >>> state = tx.init(params)

    References:
      Therien et al., `muLO <https://arxiv.org/abs/2406.00153>`_, 2024.
    """
    theta, metadata = load_pretrained(pretrained)
    if "undecided" in metadata:
        theta, metadata = load_pretrained(pretrained, variant="mulo")
    if metadata["variant"] == "elo" or metadata["kind"] != "small_fc":
        found = metadata["variant"] or metadata["kind"] or "an unknown kind"
        raise ValueError(
            f"pretrained is {os.fspath(pretrained)!r}, weights of {found}, but "
            "lopt.mulo takes those of small_fc: use lopt.from_pretrained."
        )
    options = {
        "clip_norm": clip_norm,
        "nan_to_zero": nan_to_zero,
        "scale_eps": scale_eps,
    }
    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    try:
        architecture = kinds.build(metadata["architecture"], **given)
    except ValueError as error:
        raise ValueError(
            f"pretrained is {os.fspath(pretrained)!r}, of another architecture than "
            f"small_fc: {error}."
        ) from error
    return architecture.transform(theta, width_multipliers=width_multipliers)
