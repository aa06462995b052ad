"""Celo2: a learned direction in a harness of hand-made parts."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt import accumulators, tree_checks
from lopt.celo2_direction import (
    Theta,
    pass_through_theta,
    random_theta,
    scale_by_celo2,
)
from lopt.checks import check_positive
from lopt.matrix_views import Reshape, check_reshape

EMBEDDINGS = ("embed", "wte", "wpe")


def celo2_labels(params: Any, adam: Sequence[str] = EMBEDDINGS) -> Any:
    """Says which leaves are "learned", and which are left to "adam".

    Args:
      params: a tree of arrays, or of their shapes.
      adam: what is looked for in the path of a leaf, such as "token_embedding/table",
        in lower case; add the name of the readout to leave that to Adam too.

    Returns:
      A tree like `params`: "adam" for leaves with less than 2 axes and for those that
      were found, else "learned".

    Example:
      >>> shapes = {"embedding": jnp.ones((9, 4)), "head": jnp.ones((4, 9))}
      >>> celo2_labels(shapes)
      {'embedding': 'adam', 'head': 'learned'}
    """

    def label(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/").lower()
        found = len(leaf.shape) < 2 or any(word in name for word in adam)
        return "adam" if found else "learned"

    return jax.tree_util.tree_map_with_path(label, params)


@dataclasses.dataclass(frozen=True)
class Celo2:
    r"""The learned optimizer Celo2, and without orthogonalization, Celo2-base.

    The learned rule gives a direction u of root mean square 1, see `scale_by_celo2`, so
    that the learning rate is the size of an update:

    .. math::

        x_t = x_{t-1} - \eta_t \, (u + \lambda \, x_{t-1})

    Vectors and embeddings have Adam's direction instead and the learning rate
    :math:`20 \, \eta_t`; Celo2-base has the learned rule for all leaves.

    Attributes:
      learning_rate: :math:`\eta`, a number or a schedule; a warm-up and a decay to a
        tenth are usual, from a peak of some 3e-4 in language models.
      orthogonalize: whether to, which makes it Celo2, or Celo2-base.
      weight_decay: :math:`\lambda`, decoupled, in both groups.
      label_fn: the group of every leaf, "learned" or "adam": a function of the
        parameters that gives a tree of them, or such a tree, or a prefix of one. By
        default `celo2_labels`, and in Celo2-base "learned" throughout.
      adam_multiplier: of the learning rate, in Adam's group.
      adam_b1: decay of Adam's first moment.
      adam_b2: decay of Adam's second moment.
      adam_bias_correction: off while the published weights were meta-trained.
      clip_norm: global norm to which gradients are clipped; `None` for no clipping.
      reshape: which matrices a leaf with three or more axes is, see `scale_by_celo2`.

    Raises:
      ValueError: for a value that is not allowed.

    Example:
      >>> import jax, lopt, optax
      >>> schedule = optax.warmup_cosine_decay_schedule(0, 1e-2, 10, 100, 1e-3)
      >>> architecture = lopt.celo2(schedule, weight_decay=0.1)
      >>> tx = architecture.transform(architecture.pass_through("muon"))
      >>> state = tx.init({"w": jnp.ones((3, 2)), "b": jnp.ones(2)})

    References:
      `Celo2 <https://arxiv.org/abs/2602.19142>`_, 2026.
    """

    learning_rate: optax.ScalarOrSchedule = 1e-3
    _: dataclasses.KW_ONLY
    orthogonalize: bool = True
    weight_decay: float = 0.0
    label_fn: Callable[[Any], Any] | Any = None
    adam_multiplier: float = 20.0
    adam_b1: float = 0.9
    adam_b2: float = 0.95
    adam_bias_correction: bool = True
    clip_norm: float | None = None
    reshape: Reshape | None = None

    def __post_init__(self):
        check_positive(adam_multiplier=self.adam_multiplier)
        if self.clip_norm is not None:
            check_positive(clip_norm=self.clip_norm)
        for name in ("adam_b1", "adam_b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 0 and below 1, got {getattr(self, name)}"
                )
        check_reshape(self.reshape)

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters.

        Args:
          key: a typed PRNG key.

        Returns:
          {"ff_mod_stack": float32 arrays} under the names of the published weights:
          w0__0 to w0__13, the rows of the first layer (30, 8) by kind of feature,
          w1 (8, 8) and w2 (8, 3), truncated normal of standard deviation
          0.88/sqrt(fan-in); b0, b1 (8,) and b2 (3,), which are 0. Of the three outputs
          only the first is used.
        """
        return random_theta(key)

    @staticmethod
    def pass_through(rule: str | int) -> Theta:
        """Meta-parameters with which the direction is one feature, exactly.

        They make known optimizers of the same harness, schedule and learning rate: a
        warm start for meta-training, and the control of what was learned. Two of them
        come with this package as the weights "celo2_muon" and "celo2_adam".

        Args:
          rule: "muon", momentum with decay 0.9, which orthogonalized is Muon; "adam",
            momentum over the root of the second moment, without orthogonalization; or
            the index of a feature, 0 to 29: the gradient 0, clipped 1, the parameter 2,
            momenta 3 to 5, the second moment 6, momenta over its root 7 to 9, one over
            it 10, the gradient times Adafactor's factors 11 to 13, over the root of the
            second moment 14, rows 15 to 17, columns 18 to 20, one over their roots 21
            to 26, momenta times Adafactor's factors 27 to 29. A vector has 0 to 14.

        Raises:
          ValueError: no such rule.

        Example:
          >>> import lopt
          >>> tx = lopt.celo2().transform(lopt.celo2.pass_through("muon"))
        """
        return pass_through_theta(rule)

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        Args:
          theta: meta-parameters with the names and shapes that `init` gives.
          width_multipliers: a tree like the parameters, or a prefix of one, of positive
            numbers that directions are divided by; `None` for 1 throughout.

        Returns:
          A gradient transformation, with the state of `optax.chain`, in which that of
          `scale_by_celo2` has the field `hyperparams`. Updates have the dtype of the
          parameters.

        Raises:
          ValueError: `theta` belongs to another architecture; at `init`, see
            `scale_by_celo2`.
        """
        tree_checks.multipliers(width_multipliers)
        learned = scale_by_celo2(
            theta, orthogonalize=self.orthogonalize, reshape=self.reshape
        )
        adam = _adam(self.adam_b1, self.adam_b2, self.adam_bias_correction)
        after = [_divide(width_multipliers)] if width_multipliers is not None else []
        if not isinstance(self.weight_decay, int | float) or self.weight_decay:
            after.append(optax.add_decayed_weights(self.weight_decay))
        groups: dict[Hashable, optax.GradientTransformation] = {
            "learned": optax.chain(learned, *after),
            "adam": optax.chain(adam, *after, optax.scale(self.adam_multiplier)),
        }
        clip = (
            []
            if self.clip_norm is None
            else [optax.clip_by_global_norm(self.clip_norm)]
        )
        return optax.chain(
            *clip,
            optax.partition(groups, self._labels),
            optax.scale_by_learning_rate(self.learning_rate),
        )

    def _labels(self, params: Any) -> Any:
        if callable(self.label_fn):
            return self.label_fn(params)
        if self.label_fn is not None:
            return self.label_fn
        if self.orthogonalize:
            return celo2_labels(params)
        return jax.tree.map(lambda _: "learned", params)


def _adam(
    b1: float, b2: float, bias_correction: bool
) -> optax.GradientTransformationExtraArgs:
    """Adam's direction, with float32 moments of parameters of any dtype."""
    # The derivative of the root is finite at 0, and what is added far below 1e-8.
    adam = optax.scale_by_adam(b1, b2, eps=1e-8, eps_root=1e-20)

    def wide(tree):
        return jax.tree.map(lambda x: x.astype(accumulators.wide_dtype(x)), tree)

    def init(params):
        tree_checks.real(params)
        state = adam.init(jax.tree.map(_wide_zeros, params))
        if bias_correction:
            return state
        # So late that there is nothing left to correct.
        latest = jnp.full((), jnp.iinfo(jnp.int32).max, jnp.int32)
        return optax.tree.set(state, count=latest)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        steps, state = adam.update(wide(updates), state)
        return optax.tree.cast_like(steps, updates if params is None else params), state

    return optax.GradientTransformationExtraArgs(init, update)


def _wide_zeros(leaf: Any) -> jax.Array:
    return jnp.zeros_like(leaf, dtype=accumulators.wide_dtype(leaf))


def _divide(width_multipliers: Any) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        del params
        leaves, treedef = jax.tree.flatten(updates)
        multipliers = tree_checks.multipliers_of(updates, width_multipliers)
        pairs = zip(leaves, multipliers, strict=True)
        return treedef.unflatten([(x / m).astype(x.dtype) for x, m in pairs]), state

    return optax.GradientTransformation(optax.init_empty_state, update)


celo2 = Celo2
