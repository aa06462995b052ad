"""Celo: one small network for all tensors, and a learned schedule."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt import (
    accumulators,
    controller,
    learned_schedule,
    loss_features,
    velo_rule,
)
from lopt.accumulators import Accumulators
from lopt.checked import checked
from lopt.checks import check_counts
from lopt.controller import LSTMState
from lopt.loss_features import LossBuffer
from lopt.velo_rule import LeafRule

Theta = dict[str, Any]


class CeloState(NamedTuple):
    """State of a transformation made by `Celo`.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: theta, see `Celo.init`.
      accumulators: statistics of the gradient: 7 floats per parameter of a leaf of rank
        0 or 1; of any other 4 per parameter, and 3 per row and per column.
      lstm: one row.
      loss: averages of the loss.
    """

    count: jax.Array
    hyperparams: Theta
    accumulators: Accumulators
    lstm: LSTMState
    loss: LossBuffer


@dataclasses.dataclass(frozen=True)
class Celo:
    r"""The learned optimizer Celo.

    An LSTM sees time and the loss, and gives one factor alpha for the whole model. A
    network maps 30 features of a parameter to a direction d and a log-magnitude h. With
    the root mean square of the tensor,

    .. math::

        x_t = x_{t-1} - \alpha \, \operatorname{RMS}(x_{t-1}) \, l_1 \, d \, e^{l_2 h}

    There is no learning rate; `num_steps` must be right.

    Attributes:
      num_steps: N, how often `update` will be called.
      hidden_size: H, units of the LSTM; 64 in the published weights.
      step_multiplier: l1.
      exp_multiplier: l2.
      unit_multiplier: whether alpha is 1, as in the first phase of meta-training.

    Raises:
      ValueError: for a value that is not allowed.

    Examples:
      >>> import jax, jax.numpy as jnp, lopt
      >>> architecture = lopt.celo(num_steps=100)
      >>> tx = architecture.transform(architecture.init(jax.random.key(0)))
      >>> params = {"w": jnp.ones((3, 2))}
      >>> state = tx.init(params)
      >>> loss, grads = jax.value_and_grad(lambda p: (p["w"] ** 2).sum())(params)
      >>> updates, state = tx.update(grads, state, params, value=loss)

    References:
      Moudgil et al., `Celo <https://arxiv.org/abs/2501.12670>`_, 2025.
    """

    num_steps: int
    _: dataclasses.KW_ONLY
    hidden_size: int = 64
    step_multiplier: float = 1e-3
    exp_multiplier: float = 1e-3
    unit_multiplier: bool = False

    def __post_init__(self):
        check_counts(num_steps=self.num_steps, hidden_size=self.hidden_size)

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters, with which alpha starts near 1.

        Args:
          key: a typed PRNG key.

        Returns:
          Float32 arrays under the names of the published file: "lstm_init_state" and
          "rnn_params" as `controller.init_theta` gives them for 18 inputs and one
          control, which plays no part, and "ff_mod_stack", see `velo_rule.init_theta`,
          of one network.
        """
        lstm_key, network_key = jax.random.split(key)
        theta = controller.init_theta(
            lstm_key, learned_schedule.INPUTS, self.hidden_size, 1
        )
        learned_schedule.start_at_one(theta)
        theta["ff_mod_stack"] = velo_rule.init_theta(network_key, 1)
        return theta

    def pass_through(self, feature: int) -> Theta:
        """Meta-parameters with which alpha is 1, and d is one normalised feature.

        Args:
          feature: its index, 0 to 29: see `lopt.velo`.

        Raises:
          ValueError: no such feature.
        """
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        theta = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        learned_schedule.start_at_one(theta)
        theta["ff_mod_stack"] = velo_rule.pass_through(feature, 1)
        return theta

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        `update(grads, state, params, value=loss)` needs the loss that the gradient
        belongs to. Gradients are clipped to [-1000, 1000]; one that is NaN stays so.

        Args:
          theta: meta-parameters with the names and shapes that `init` gives.
          width_multipliers: a tree like the parameters, or a prefix of one, of positive
            numbers that steps are divided by; `None` for 1 throughout.

        Returns:
          A gradient transformation with state `CeloState`. Updates have the dtype of
          the parameters; they are what to add, with no learning rate left to choose.

        Raises:
          ValueError: `theta` belongs to another architecture; at `init` or `update`,
            for complex parameters, parameters that `width_multipliers` does not cover,
            or none, or a loss that is not a scalar.
          TypeError: at `update`, without `value`.
        """

        def init(params, theta):
            zero = accumulators.zero_of(params)
            return CeloState(
                count=jnp.zeros((), jnp.int32),
                hyperparams=theta,
                accumulators=accumulators.init(params),
                lstm=controller.init(1, self.hidden_size, zero),
                loss=loss_features.init(zero),
            )

        return checked(
            self, theta, width_multipliers, init, self._update, sees_loss=True
        )

    def _update(self, updates, state: CeloState, params, widths, value):
        given, treedef = jax.tree.flatten(updates)
        alpha, after = learned_schedule.advance(state, value, self.num_steps)
        if self.unit_multiplier:
            alpha = jnp.ones_like(alpha)
        bank = velo_rule.networks(state.hyperparams["ff_mod_stack"])
        network = jax.tree.map(lambda leaf: leaf[0], bank)
        rules = [
            LeafRule(network, alpha * (self.step_multiplier / width))
            for width in widths
        ]
        steps, new = velo_rule.update(
            given,
            treedef.flatten_up_to(params),
            accumulators.leaves(state.accumulators, treedef),
            rules,
            exp_multiplier=self.exp_multiplier,
        )
        kept = accumulators.unflatten(new, state.accumulators, treedef)
        return treedef.unflatten(steps), after._replace(accumulators=kept)


celo = Celo
