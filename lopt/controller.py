"""The LSTM that looks at a whole run, and decides about updates from step to step.

It has a row per tensor: rows share weights, and see the largest of what the others say.
Celo and learned schedules have one row for all tensors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Theta = dict[str, Any]

MOMENTS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)


class LSTMState(NamedTuple):
    """Of every row; before the first update, theta's initial state takes its place.

    Attributes:
      hidden: shape (rows, H).
      cell: shape (rows, H).
    """

    hidden: jax.Array
    cell: jax.Array


def init_theta(
    key: jax.Array, num_inputs: int, hidden_size: int, num_controls: int = 0
) -> Theta:
    """Random weights and an initial state 0.

    Args:
      key: a typed PRNG key.
      num_inputs: of a row.
      hidden_size: H.
      num_controls: outputs besides the multiplier.

    Returns:
      "lstm_init_state", hidden and cell (1, H), and "rnn_params": linear, which plays
      no part, linear_1 and linear_2, (inputs, H); rnn, (2 H, 4 H); step_size, (H, 1);
      and rnn_to_controls, (H, controls), if there are any; each with w, of standard
      deviation 0.88/sqrt(fan-in), truncated normal, and b, which is 0.
    """
    sizes = {
        "linear": (num_inputs, hidden_size),
        "linear_1": (num_inputs, hidden_size),
        "linear_2": (num_inputs, hidden_size),
        "rnn": (2 * hidden_size, 4 * hidden_size),
        "rnn_to_controls": (hidden_size, num_controls),
        "step_size": (hidden_size, 1),
    }
    layers: Theta = {}
    for i, (name, (fan_in, fan_out)) in enumerate(sizes.items()):
        if fan_out:
            layer_key = jax.random.fold_in(key, i)
            weight = truncated_normal(layer_key, (fan_in, fan_out), fan_in**-0.5)
            layers[name] = {"w": weight, "b": jnp.zeros(fan_out, jnp.float32)}
    layers["rnn"] = {"linear": layers["rnn"]}
    names = ("hidden", "cell")
    start = {name: jnp.zeros((1, hidden_size), jnp.float32) for name in names}
    return {"lstm_init_state": start, "rnn_params": layers}


def truncated_normal(key: jax.Array, shape: tuple[int, ...], scale: float) -> jax.Array:
    """`scale` times a standard normal variable that is cut off at -2 and 2."""
    return scale * jax.random.truncated_normal(key, -2, 2, shape, jnp.float32)


def init(rows: int, hidden_size: int, zero: jax.Array) -> LSTMState:
    """The state before the first update, full of this zero."""
    shape = (rows, hidden_size)
    return LSTMState(jnp.full(shape, zero), jnp.full(shape, zero))


def global_inputs(count: jax.Array, num_steps: int, loss: jax.Array) -> jax.Array:
    """Shape (18,): how far the run is, and the 9 features of the loss.

    Args:
      count: updates done before.
      num_steps: length of the run.
      loss: shape (9,).
    """
    time = count.astype(loss.dtype) / num_steps
    moments = jnp.asarray(np.array(MOMENTS), loss.dtype)
    return jnp.concatenate([jnp.tanh(10 * (time - moments)), loss])


def advance(
    theta: Theta, old: LSTMState, inputs: jax.Array, count: jax.Array
) -> LSTMState:
    """One step of the LSTM, for all rows at once.

    Args:
      theta: with the entries that `init_theta` gives.
      old: the state.
      inputs: shape (rows, inputs).
      count: updates done before.
    """
    layers = theta["rnn_params"]
    start = LSTMState(**theta["lstm_init_state"])
    hidden, cell = jax.tree.map(
        lambda x, first: jnp.where(count == 0, jnp.broadcast_to(first, x.shape), x),
        old,
        start,
    )
    said = jax.nn.relu(_linear(layers["linear_1"], inputs))
    heard = said.max(0, keepdims=True, initial=0.0)
    mixed = _linear(layers["linear_2"], inputs)
    mixed += jnp.broadcast_to(heard, mixed.shape)
    gates = _linear(layers["rnn"]["linear"], jnp.concatenate([mixed, hidden], 1))
    enter, value, forget, leave = jnp.split(gates, 4, 1)
    cell = jax.nn.sigmoid(forget + 1) * cell
    cell += jax.nn.sigmoid(enter) * jnp.tanh(value)
    return LSTMState(jax.nn.sigmoid(leave) * jnp.tanh(cell), cell)


def controls(theta: Theta, state: LSTMState) -> jax.Array:
    """Shape (rows, controls)."""
    return _linear(theta["rnn_params"]["rnn_to_controls"], state.hidden)


def multipliers(theta: Theta, state: LSTMState) -> jax.Array:
    """Shape (rows,), of any sign."""
    return _linear(theta["rnn_params"]["step_size"], state.hidden)[:, 0]


def _linear(layer: Theta, inputs: jax.Array) -> jax.Array:
    """(rows, in) -> (rows, out)."""
    return jnp.dot(inputs, layer["w"], precision="highest") + layer["b"][None]
