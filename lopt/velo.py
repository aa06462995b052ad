"""VeLO: an LSTM that looks at every tensor, and mixes a small network for each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt import accumulators, controller, loss_features, velo_rule
from lopt.accumulators import Accumulators
from lopt.checked import checked
from lopt.checks import check_counts, check_option, check_positive
from lopt.controller import LSTMState
from lopt.loss_features import LossBuffer
from lopt.micro_steps import accumulate
from lopt.velo_rule import LeafRule

Theta = dict[str, Any]

INPUTS = 30
RANKS = 5


class VeLOState(NamedTuple):
    """State of a transformation made by `VeLO`.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: theta, see `VeLO.init`.
      accumulators: statistics of the gradient: 7 floats per parameter of a leaf of rank
        0 or 1; of any other 4 per parameter, and 3 per row and per column.
      lstm: a row per leaf of the parameters that is not empty, in the order of leaves.
      loss: averages of the loss.
    """

    count: jax.Array
    hyperparams: Theta
    accumulators: Accumulators
    lstm: LSTMState
    loss: LossBuffer


@dataclasses.dataclass(frozen=True)
class VeLO:
    r"""The learned optimizer VeLO, and muVeLO, its form for muP.

    An LSTM sees time, the loss, and statistics of every tensor. For each it gives a
    multiplier alpha, and controls that mix a network out of a bank; the network maps 30
    features of a parameter to a direction d and a log-magnitude h. With the root mean
    square of the tensor, and width multiplier n,

    .. math::

        x_t = x_{t-1} - \alpha \, \operatorname{RMS}(x_{t-1})
              \frac{l_1}{n} \, d \, e^{l_2 h} - w \, x_{t-1}

    There is no learning rate. What must be right is `num_steps`: the optimizer slows
    down towards the end of the run as it was told, and not as it happens.

    Attributes:
      num_steps: N, how often `update` will be called.
      parametrization: of the tasks it is meant for: standard ("sp") or maximal-update
        ("mup"). It decides the default of `scale_by_parameters`.
      hidden_size: H, units of the LSTM; 512 in the published weights.
      bank_size: K, networks in the bank; 256 in the published weights.
      step_multiplier: l1.
      exp_multiplier: l2.
      bank_multiplier: what the mean over the bank is multiplied with.
      scale_by_parameters: whether a step is proportional to RMS(x); by default in SP
        only, as the readouts of muP start at 0 and would never leave it.
      unit_controls: whether all controls are 1: the network is the mean of the bank.
      unit_multiplier: whether alpha is 1.
      weight_decay: w, the part of a parameter that every update takes away.
      max_steps: updates that the LSTM is asked to plan at most. A longer run takes one
        update in `ceil(N / max_steps)` calls, with the mean of their gradients and of
        their losses; the other calls give 0.

    Raises:
      ValueError: for a value that is not allowed.

    Examples:
      >>> import jax, jax.numpy as jnp, lopt
      >>> architecture = lopt.velo(num_steps=100, hidden_size=8, bank_size=4)
      >>> tx = architecture.transform(architecture.init(jax.random.key(0)))
      >>> params = {"w": jnp.ones((3, 2))}
      >>> state = tx.init(params)
      >>> loss, grads = jax.value_and_grad(lambda p: (p["w"] ** 2).sum())(params)
      >>> updates, state = tx.update(grads, state, params, value=loss)
      >>> state.lstm.hidden.shape
      (1, 8)

    References:
      Metz et al., `VeLO <https://arxiv.org/abs/2211.09760>`_, 2022; Therien et al.,
      `muLO <https://arxiv.org/abs/2406.00153>`_, 2024.
    """

    num_steps: int
    _: dataclasses.KW_ONLY
    parametrization: Literal["sp", "mup"] = "sp"
    hidden_size: int = 512
    bank_size: int = 256
    step_multiplier: float = 1e-3
    exp_multiplier: float = 1e-3
    bank_multiplier: float = 100.0
    scale_by_parameters: bool | None = None
    unit_controls: bool = False
    unit_multiplier: bool = False
    weight_decay: float = 0.0
    max_steps: int = 150_000

    def __post_init__(self):
        check_option("parametrization", self.parametrization, ("sp", "mup"))
        check_counts(
            num_steps=self.num_steps,
            hidden_size=self.hidden_size,
            bank_size=self.bank_size,
            max_steps=self.max_steps,
        )
        if self.weight_decay != 0:
            check_positive(weight_decay=self.weight_decay)

    @property
    def calls_per_update(self) -> int:
        """How many calls of `update` share one step: 1, up to `max_steps` calls."""
        return math.ceil(self.num_steps / self.max_steps)

    @property
    def num_updates(self) -> int:
        """How many steps the LSTM plans."""
        return self.num_steps // self.calls_per_update

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters.

        Multipliers alpha start near 1, and networks with weights of standard deviation
        about 0.8/sqrt(fan-in): the scale of the bank makes up for the mean over it and
        for `bank_multiplier`, and the biases of controls are random.

        Args:
          key: a typed PRNG key.

        Returns:
          Float32 arrays under the names of google's `learned_optimization`:
          "lstm_init_state" and "rnn_params" as `controller.init_theta` gives them for
          30 inputs and K controls, and the bank "ff_mod_stack", see
          `velo_rule.init_theta`.
        """
        lstm_key, bank_key, control_key = jax.random.split(key, 3)
        theta = controller.init_theta(
            lstm_key, INPUTS, self.hidden_size, self.bank_size
        )
        layers = theta["rnn_params"]
        layers["step_size"]["b"] = jnp.ones(1, jnp.float32)
        layers["rnn_to_controls"]["b"] = controller.truncated_normal(
            control_key, (self.bank_size,), 1.0
        )
        scale = self.bank_size**0.5 / self.bank_multiplier
        theta["ff_mod_stack"] = velo_rule.init_theta(bank_key, self.bank_size, scale)
        return theta

    def pass_through(self, feature: int) -> Theta:
        """Meta-parameters with which alpha is 1, and d is one normalised feature.

        With feature 7, momentum over the root of the second moment, VeLO is an Adam
        whose updates have the root mean square l1 RMS(x): a warm start for
        meta-training, and a control of what was learned.

        Args:
          feature: index of the feature, 0 to 29: the gradient 0, clipped to [-0.1, 0.1]
            1, the parameter 2, momenta 3 to 5, the second moment 6, momenta over its
            root 7 to 9.

        Raises:
          ValueError: no such feature.
        """
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        theta = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        layers = theta["rnn_params"]
        layers["step_size"]["b"] = jnp.ones(1, jnp.float32)
        mean = jnp.full(self.bank_size, 1 / self.bank_multiplier, jnp.float32)
        layers["rnn_to_controls"]["b"] = mean
        theta["ff_mod_stack"] = velo_rule.pass_through(feature, self.bank_size)
        return theta

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        `update(grads, state, params, value=loss)` needs the loss that the gradient
        belongs to. Gradients are clipped to [-1000, 1000]; one that is NaN stays so.
        Inside `optax.MultiSteps`, the loss is that of the last call: for the mean of
        all, make `num_steps` and `max_steps` such that `calls_per_update` is right.

        Args:
          theta: meta-parameters with the names and shapes that `init` gives.
          width_multipliers: a tree like the parameters, or a prefix of one, of positive
            numbers that steps are divided by; `None` for 1 throughout.

        Returns:
          A gradient transformation with state `VeLOState`, inside of that of
          `optax.MultiSteps` for runs longer than `max_steps`. Updates have the dtype of
          the parameters; they are what to add, with no learning rate left to choose.

        Raises:
          ValueError: `theta` belongs to another architecture; at `init` or `update`,
            for complex parameters, parameters that `width_multipliers` does not cover,
            or none, or a loss that is not a scalar.
          TypeError: at `update`, without `value`.
        """

        def init(params, theta):
            zero = accumulators.zero_of(params)
            rows = sum(math.prod(jnp.shape(p)) > 0 for p in jax.tree.leaves(params))
            return VeLOState(
                count=jnp.zeros((), jnp.int32),
                hyperparams=theta,
                accumulators=accumulators.init(params),
                lstm=controller.init(rows, self.hidden_size, zero),
                loss=loss_features.init(zero),
            )

        transformation = checked(
            self, theta, width_multipliers, init, self._update, sees_loss=True
        )
        if self.calls_per_update > 1:
            return accumulate(transformation, self.calls_per_update, "VeLO")
        return transformation

    def _update(self, updates, state: VeLOState, params, widths, value):
        given, treedef = jax.tree.flatten(updates)
        targets = treedef.flatten_up_to(params)
        old = accumulators.leaves(state.accumulators, treedef)
        filled = [i for i, p in enumerate(targets) if p.size]

        loss, seen = loss_features.advance(state.loss, value, self.num_updates)
        seen = controller.global_inputs(state.count, self.num_updates, seen)
        rows = [_tensor_inputs(targets[i], old[i]) for i in filled]
        shared = jnp.broadcast_to(seen, (len(rows), *seen.shape))
        inputs = jnp.concatenate([shared, _stack(rows, seen.dtype)], 1)
        lstm = controller.advance(state.hyperparams, state.lstm, inputs, state.count)

        rules = self._rules(state.hyperparams, lstm, [widths[i] for i in filled])
        by_leaf = dict(zip(filled, rules, strict=True))
        by_size = self.scale_by_parameters
        steps, new = velo_rule.update(
            given,
            targets,
            old,
            [by_leaf.get(i) for i in range(len(given))],
            exp_multiplier=self.exp_multiplier,
            by_size=self.parametrization == "sp" if by_size is None else by_size,
            weight_decay=self.weight_decay,
        )
        state = VeLOState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            hyperparams=state.hyperparams,
            accumulators=accumulators.unflatten(new, state.accumulators, treedef),
            lstm=lstm,
            loss=loss,
        )
        return treedef.unflatten(steps), state

    def _rules(
        self, theta: Theta, lstm: LSTMState, widths: Sequence[Any]
    ) -> list[LeafRule]:
        """One for every row of the LSTM."""
        controls = controller.controls(theta, lstm)
        multipliers = controller.multipliers(theta, lstm)
        if self.unit_controls:
            controls = jnp.ones_like(controls)
        if self.unit_multiplier:
            multipliers = jnp.ones_like(multipliers)
        weights = controls * (self.bank_multiplier / self.bank_size)
        bank = velo_rule.networks(theta["ff_mod_stack"])
        mixed = jax.tree.map(
            lambda leaf: jnp.tensordot(weights, leaf, 1, precision="highest"), bank
        )
        return [
            LeafRule(
                network=jax.tree.map(lambda leaf: leaf[row], mixed),  # noqa: B023
                length=multipliers[row] * (self.step_multiplier / width),
            )
            for row, width in enumerate(widths)
        ]


def _tensor_inputs(param: jax.Array, old: Accumulators) -> list[jax.Array]:
    """12 scalars, of the statistics before the update, relative to RMS(param)."""
    (second,) = old.second_moments
    size = jnp.mean(jnp.asarray(param, second.dtype) ** 2)
    scale = jax.lax.rsqrt(jnp.maximum(size, 1e-9))
    momenta = [jnp.mean(m) * scale for m in old.momenta]
    variances = [jnp.var(m) * scale**2 for m in old.momenta]
    mean, variance = jnp.mean(second) * scale, jnp.var(second) * scale**2
    # The mean of (v - mean m)^2: the published weights were trained with it.
    mixed = [variance + (mean - momentum) ** 2 for momentum in momenta]
    wide_axes = sum(length > 1 for length in jnp.shape(param))
    rank = [jnp.asarray(wide_axes == i, second.dtype) for i in range(RANKS)]
    logs = [_squashed_log(x) for x in (mean, *variances, *mixed)]
    return [logs[0], *rank, *logs[1:]]


def _squashed_log(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.log(1e-8 + jnp.abs(10 * x)), -5, 5) / 2


def _stack(rows: Sequence[Sequence[jax.Array]], dtype: Any) -> jax.Array:
    numbers = [jnp.asarray(x, dtype) for row in rows for x in row]
    if not numbers:
        return jnp.zeros((0, INPUTS - 18), dtype)
    return jnp.stack(numbers).reshape(len(rows), -1)


velo = VeLO
