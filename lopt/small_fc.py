"""small_fc: one small network, applied to every parameter by itself."""

import dataclasses
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt import accumulators
from lopt.accumulators import Accumulators, Rates
from lopt.checked import checked
from lopt.checks import check_counts, check_option, check_positive
from lopt.small_fc_network import network_at, unit_step

Theta = dict[str, Any]

MOMENTUM_RATES = (0.1, 0.01, 0.001)
SECOND_MOMENT_RATES = (0.001,)
FACTORED_RATES = (0.1, 0.01, 0.001)
STEP_MULTIPLIERS = {"mup": 0.01, "sp": 0.001}


class SmallFCState(NamedTuple):
    """State of a transformation made by `SmallFC`.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: theta, see `SmallFC.init`.
      accumulators: statistics of the gradient: 7 floats per parameter of a leaf of rank
        0 or 1; of any other 4 per parameter, and 3 per row and per column.
    """

    count: jax.Array
    hyperparams: Theta
    accumulators: Accumulators


@dataclasses.dataclass(frozen=True)
class SmallFC:
    r"""The learned optimizer small_fc, of which muLO is the form for muP.

    A network with two hidden layers maps 39 features of a parameter to a direction d
    and a log-magnitude h. With width multiplier n of the leaf,

    .. math::

        x_t = x_{t-1} - \frac{l_1}{n} \, d \, e^{l_2 h}

    Attributes:
      parametrization: of the tasks it is meant for: maximal-update ("mup") or standard
        ("sp"). It decides the defaults of `step_multiplier` and `nan_to_zero`.
      hidden_size: H, units of each hidden layer.
      step_multiplier: l1; by default 0.01 in muP and 0.001 in SP.
      exp_multiplier: l2.
      clip_norm: global norm to which gradients are clipped, before NaN are replaced, so
        that one NaN then makes the whole gradient 0; `None` for no clipping.
      nan_to_zero: whether NaN gradients become 0, and infinite ones the largest float;
        by default in muP only.
      clip_momentum_decays: whether learned decays of the momenta are kept in [0, 1], as
        those of second moments always are.
      scale_eps: whether every epsilon is divided by n squared, which keeps features of
        very wide layers, with gradients of 1/n, away from them.

    Raises:
      ValueError: for a value that is not allowed.

    Examples:
      >>> import jax, lopt
      >>> architecture = lopt.small_fc("sp", hidden_size=4)
      >>> theta = architecture.init(jax.random.key(0))
      >>> tx = architecture.transform(theta)
      >>> state = tx.init({"w": jax.numpy.ones((3, 2))})
      >>> state.hyperparams["nn"]["w0"].shape
      (39, 4)

    References:
      Therien et al., `muLO <https://arxiv.org/abs/2406.00153>`_, 2024; Metz et al.,
      `Practical tradeoffs <https://arxiv.org/abs/2203.11860>`_, 2022.
    """

    parametrization: Literal["mup", "sp"] = "mup"
    _: dataclasses.KW_ONLY
    hidden_size: int = 32
    step_multiplier: float | None = None
    exp_multiplier: float = 1e-3
    clip_norm: float | None = None
    nan_to_zero: bool | None = None
    clip_momentum_decays: bool = False
    scale_eps: bool = False

    def __post_init__(self):
        check_option("parametrization", self.parametrization, tuple(STEP_MULTIPLIERS))
        check_counts(hidden_size=self.hidden_size)
        if self.clip_norm is not None:
            check_positive(clip_norm=self.clip_norm)

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters.

        Args:
          key: a typed PRNG key.

        Returns:
          Float32 arrays under the names of google's `learned_optimization`: "nn" with
          w0 (39, H), b0 (H,), w1 (H, H), b1 (H,), w2 (H, 2), b2 (2,), of standard
          deviation 0.88/sqrt(fan-in), truncated normal, and biases 0; and offsets 0
          of the decays: "momentum_decays" (3,), "rms_decays" (1,), "adafactor_decays"
          (3,).
        """
        nn = {}
        sizes = itertools.pairwise((39, self.hidden_size, self.hidden_size, 2))
        for i, (fan_in, fan_out) in enumerate(sizes):
            shape = (fan_in, fan_out)
            layer_key = jax.random.fold_in(key, i)
            z = jax.random.truncated_normal(layer_key, -2, 2, shape, jnp.float32)
            nn[f"w{i}"] = z / fan_in**0.5
            nn[f"b{i}"] = jnp.zeros(fan_out, jnp.float32)
        return {
            "nn": nn,
            "momentum_decays": jnp.zeros(3, jnp.float32),
            "rms_decays": jnp.zeros(1, jnp.float32),
            "adafactor_decays": jnp.zeros(3, jnp.float32),
        }

    def pass_through(self, feature: int) -> Theta:
        """Meta-parameters with which the direction d is one normalised feature.

        With feature 6, momentum over the root of the second moment, small_fc is an Adam
        whose updates have the root mean square l1: a warm start for meta-training, and
        a control of what was learned.

        Args:
          feature: index of the feature, 0 to 38: the gradient 0, the parameter 1,
            momenta 2 to 4, the second moment 5, momenta over its root 6 to 8.

        Raises:
          ValueError: no such feature, or `hidden_size` is less than 2.

        Examples:
          >>> import lopt
          >>> adam = lopt.small_fc()
          >>> tx = adam.transform(adam.pass_through(6))
        """
        check_option("feature", feature, tuple(range(39)))
        check_counts(2, hidden_size=self.hidden_size)
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        theta = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        # relu(x) - relu(-x) = x
        theta["nn"]["w0"][feature, :2] = [1, -1]
        theta["nn"]["w1"][:2, :2] = np.eye(2)
        theta["nn"]["w2"][:2, 0] = [1, -1]
        return jax.tree.map(jnp.asarray, theta)

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        Args:
          theta: meta-parameters with the names and shapes that `init` gives.
          width_multipliers: a tree like the parameters, or a prefix of one, of positive
            numbers that updates are divided by; `None` for 1 throughout.

        Returns:
          A gradient transformation with state `SmallFCState`. Updates have the dtype of
          the parameters; they are what to add, with no learning rate left to choose.

        Raises:
          ValueError: `theta` belongs to another architecture; at `init` or `update`,
            for complex parameters, parameters that `width_multipliers` does not cover,
            or none.
        """

        def init(params, theta):
            return SmallFCState(
                count=jnp.zeros((), jnp.int32),
                hyperparams=theta,
                accumulators=accumulators.init(params),
            )

        return checked(self, theta, width_multipliers, init, self._update)

    def _update(self, updates, state: SmallFCState, params, multipliers):
        given, treedef = jax.tree.flatten(updates)
        targets = treedef.flatten_up_to(params)
        old = accumulators.leaves(state.accumulators, treedef)
        grads = [
            jnp.asarray(g, leaf.momenta[0].dtype)
            for g, leaf in zip(given, old, strict=True)
        ]
        grads = self._cleaned(grads)
        rates = self._rates(state.hyperparams)
        network = network_at(state.hyperparams, state.count)
        steps, new = [], []
        for grad, param, leaf, multiplier in zip(
            grads, targets, old, multipliers, strict=True
        ):
            leaf = accumulators.advance(leaf, grad, rates)
            new.append(leaf)
            steps.append(self._leaf_update(network, grad, param, leaf, multiplier))
        state = SmallFCState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            hyperparams=state.hyperparams,
            accumulators=accumulators.unflatten(new, state.accumulators, treedef),
        )
        return treedef.unflatten(steps), state

    def _leaf_update(self, network, grad, param, new, multiplier):
        if not grad.size:
            return jnp.zeros_like(param)
        dtype = grad.dtype
        step = unit_step(
            jax.tree.map(lambda x: x.astype(dtype), network),
            grad,
            jnp.asarray(param, dtype),
            new,
            self.exp_multiplier,
            eps=multiplier**-2 if self.scale_eps else 1.0,
        )
        length = self.step_multiplier
        if length is None:
            length = STEP_MULTIPLIERS[self.parametrization]
        return (step * (-length / multiplier)).astype(jnp.result_type(param))

    def _cleaned(self, grads: list[jax.Array]) -> list[jax.Array]:
        """Clipped as a whole, then without NaN and infinities."""
        if self.clip_norm is not None:
            # The root of what is at least the limit has a finite derivative at 0.
            limit = self.clip_norm**2
            squared = optax.tree.norm(grads, squared=True)
            squared = jnp.where(squared < limit, limit, squared)
            scale = self.clip_norm / jnp.sqrt(squared)
            grads = [g * scale.astype(g.dtype) for g in grads]
        replace = self.nan_to_zero
        if self.parametrization == "mup" if replace is None else replace:
            grads = [jnp.nan_to_num(g) for g in grads]
        return grads

    def _rates(self, theta: Theta) -> Rates:
        learned = accumulators.learned_rates
        return Rates(
            momenta=learned(
                MOMENTUM_RATES,
                theta["momentum_decays"],
                clip=self.clip_momentum_decays,
            ),
            second_moments=learned(SECOND_MOMENT_RATES, theta["rms_decays"]),
            factored=learned(FACTORED_RATES, theta["adafactor_decays"]),
        )


small_fc = SmallFC
