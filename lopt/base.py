"""What a learned optimizer is."""

from typing import Any, Protocol

import jax
import optax

Theta = Any


class LearnedOptimizer(Protocol):
    """An architecture: it makes meta-parameters, and a transformation from them.

    The state of the transformation is a NamedTuple with a field `hyperparams`, the
    meta-parameters theta: a nested dict of float32 arrays that `update` reads and
    passes through unchanged. It is differentiable with respect to them.
    """

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters to start meta-training from."""
        ...

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        Args:
          theta: meta-parameters of this architecture.
          width_multipliers: a tree like the parameters, of what the update of a leaf is
            divided by (`Task.width_multipliers`); `None` in standard parametrization.

        Raises:
          ValueError: `theta` belongs to another architecture.
        """
        ...
