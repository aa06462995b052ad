import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tasks.functional import count_parameters, functional
from tasks.models import LSTMClassifier, LSTMForecaster
from tasks.models.lstm import LSTMLayer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(cell, inputs):
    """The outputs of one direction, input by input."""
    weights = [np.asarray(cell[n]) for n in ("input_kernel", "recurrent_kernel")]
    output = memory = np.zeros((len(inputs), weights[1].shape[0]))
    outputs = []
    for x in inputs.transpose(1, 0, 2):
        gates = x @ weights[0] + output @ weights[1] + np.asarray(cell["bias"])
        write, keep, candidate, read = np.split(gates, 4, axis=1)
        memory = sigmoid(keep) * memory + sigmoid(write) * np.tanh(candidate)
        output = sigmoid(read) * np.tanh(memory)
        outputs.append(output)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_equals_numpy_input_by_input(bidirectional):
    init, apply = functional(
        lambda rngs: LSTMLayer(3, 4, bidirectional=bidirectional, rngs=rngs)
    )
    params, _ = init(jax.random.key(0))
    inputs = np.asarray(2 * jax.random.normal(jax.random.key(1), (2, 5, 3)))
    (outputs, final), model_state = jax.jit(apply)(params, (), inputs)
    expected = [numpy_lstm(params["forward"], inputs)]
    last = [expected[0][:, -1]]
    if bidirectional:
        back = numpy_lstm(params["backward"], inputs[:, ::-1])
        expected, last = [*expected, back[:, ::-1]], [*last, back[:, -1]]
    close = {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(outputs, np.concatenate(expected, axis=2), **close)
    np.testing.assert_allclose(final, np.concatenate(last, axis=1), **close)
    assert model_state == ()


def test_sizes_are_those_of_the_paper():
    init, _ = functional(
        lambda rngs: LSTMClassifier(
            25_000, 2, embedding_size=32, width=64, depth=2, dropout=0.2, rngs=rngs
        )
    )
    assert count_parameters(init) == 948_738  # 0.95 million
    init, _ = functional(
        lambda rngs: LSTMForecaster(7, width=8, depth=2, dropout=0.0, rngs=rngs)
    )
    assert count_parameters(init) == 32 * (7 + 8 + 1) + 32 * (8 + 8 + 1) + 9


def test_matrices_start_within_the_bounds_of_their_width():
    layer = LSTMLayer(100, 25, rngs=nnx.Rngs(0))
    for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(layer, nnx.Param))):
        assert 0.17 < abs(leaf).max() <= 0.2


def test_dropout_falls_between_layers_and_before_the_readout():
    def outputs(depth, **options):
        init, apply = functional(
            lambda rngs: LSTMClassifier(
                9, 2, embedding_size=3, width=4, depth=depth, dropout=0.5, rngs=rngs
            )
        )
        params, _ = init(jax.random.key(0))
        tokens = jnp.arange(14).reshape(2, 7) % 9
        return np.asarray(apply(params, (), tokens, **options)[0])

    for depth in 1, 2:
        quiet = outputs(depth)
        noisy = [outputs(depth, key=jax.random.key(i)) for i in (0, 0, 1)]
        np.testing.assert_array_equal(noisy[0], noisy[1])
        assert not np.allclose(noisy[0], noisy[2])
        assert not np.allclose(noisy[0], quiet)
