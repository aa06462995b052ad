"""The CNN and ResNet-9 of MADA's CIFAR-10: sizes, pooling, batch normalization."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from tasks.convolution import cnn_classifier, resnet9_classifier
from tasks.functional import count_parameters, functional
from tasks.models import CNN, ResNet9
from tasks.models.convolution import max_pool

CIFAR = (32, 32, 3)


@pytest.fixture(scope="module")
def task():
    return resnet9_classifier(
        "digits", widths=(2, 3, 4, 5), augment=False, batch_size=8
    )


@pytest.mark.parametrize(
    ("shape", "channels", "hidden", "flat"),
    [(CIFAR, (6, 16), (120, 84), 5 * 5 * 16), ((16, 20, 1), (3, 4), (), 1 * 2 * 4)],
)
def test_size_of_the_cnn(shape, channels, hidden, flat):
    sizes = (flat, *hidden, 10)
    dense = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    sizes = (shape[-1], *channels)
    convolved = sum((25 * a + 1) * b for a, b in itertools.pairwise(sizes))
    init, _ = functional(
        lambda rngs: CNN(shape, 10, channels=channels, hidden=hidden, rngs=rngs)
    )
    assert count_parameters(init) == convolved + dense
    if shape == CIFAR:
        assert convolved + dense == 62_006


@pytest.mark.parametrize("widths", [(64, 128, 256, 512), (2, 3, 4, 5)])
def test_size_of_resnet9(widths):
    one, two, three, four = widths
    pairs = (3, one), (one, two), (two, two), (two, two), (two, three)
    pairs += (three, four), (four, four), (four, four)
    expected = sum(9 * a * b + 2 * b for a, b in pairs) + (four + 1) * 10
    init, _ = functional(lambda rngs: ResNet9(CIFAR, 10, widths=widths, rngs=rngs))
    assert count_parameters(init) == expected
    if one == 64:
        assert expected == 6_573_130


def test_the_cnn_is_what_its_layers_say():
    init, apply = functional(
        lambda rngs: CNN(CIFAR, 10, channels=(2, 3), hidden=(4,), rngs=rngs)
    )
    params, model_state = init(jax.random.key(0))
    assert model_state == ()
    x = images = jax.random.normal(jax.random.key(1), (2, *CIFAR))
    for layer in params["convolutions"].values():
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (1, 1), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        x = jnp.maximum(x + layer["bias"].reshape(1, 1, 1, -1), 0)
        x = jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    x = x.reshape(2, -1) @ params["layers"]["0"]["kernel"]
    x = jnp.maximum(x + params["layers"]["0"]["bias"][None], 0)
    x = x @ params["layers"]["1"]["kernel"] + params["layers"]["1"]["bias"][None]
    np.testing.assert_allclose(apply(params, (), images)[0], x, rtol=1e-4, atol=1e-5)


def test_odd_rows_are_left_out_of_pooling():
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 3))
    expected = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    np.testing.assert_array_equal(max_pool(x), expected)


def test_resnet9_adds_what_stands_beside_the_identity():
    init, apply = functional(
        lambda rngs: ResNet9((8, 8, 3), 10, widths=(4, 8, 8, 8), rngs=rngs)
    )
    params, model_state = init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (8, 8, 8, 3))

    @jax.jit
    def without(scale_of_first, scale_of_second):
        """Logits with the last normalization of each pair scaled."""
        changed = {**params, "residuals": {}}
        for i, scale in enumerate((scale_of_first, scale_of_second)):
            one, two = (params["residuals"][str(i)][j] for j in ("0", "1"))
            scaled = jax.tree.map(lambda x, scale=scale: scale * x, two["bn"])
            changed["residuals"][str(i)] = {"0": one, "1": {**two, "bn": scaled}}
        return apply(changed, model_state, images)[0]

    neither, both = without(0.0, 0.0), without(1.0, 1.0)
    assert jnp.abs(neither).max() > 1e-3  # The identity is still there.
    for one in (without(0.0, 1.0), without(1.0, 0.0)):
        assert jnp.abs(one - both).max() > 1e-4
        assert jnp.abs(one - neither).max() > 1e-4


def test_running_statistics_are_recorded_in_training_and_read_in_evaluation(task):
    @jax.jit
    def record(params, model_state, data):
        def step(model_state, key):
            batch = task.sample(data, key)
            return task.loss(params, model_state, batch, key)[1], None

        keys = jax.random.split(jax.random.key(0), 60)
        return jax.lax.scan(step, model_state, keys)[0]

    params, before = task.init(jax.random.key(0))
    after = record(params, before, task.data["train"])
    assert jnp.abs(after["residuals"]["1"]["1"]["bn"]["mean"]).max() > 0.01
    evaluate, data = jax.jit(task.evaluate), task.data["valid"]
    fresh, trained = (evaluate(params, s, data)["loss"] for s in (before, after))
    # With the statistics of the data, evaluation sees what training does.
    in_training, _ = jax.jit(task.loss)(params, after, data, jax.random.key(0))
    assert abs(trained - in_training) < 0.1 * in_training
    assert abs(fresh - in_training) > 2 * abs(trained - in_training)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (cnn_classifier, {}, "8 x 8 pixels are too small for 2 convolutions"),
        (cnn_classifier, {"hidden": (0,)}, "width must be an integer >= 1"),
        (resnet9_classifier, {"size": 4}, "at least 8 x 8 pixels, got 4 x 4"),
        (resnet9_classifier, {"widths": (1, 2, 3)}, "widths must be those of 4"),
        (resnet9_classifier, {"batch_size": 0}, "batch_size must be an integer >= 1"),
        (resnet9_classifier, {"validate_on": "x"}, "validate_on"),
    ],
)
def test_options_that_are_not_allowed(make, options, message):
    with pytest.raises(ValueError, match=message):
        make("digits", **options)


def test_registered_with_small_variants():
    for name in ("cifar10-cnn", "cifar10-resnet9"):
        assert "augment=True" in tasks.describe(name)
        assert "size=16" in tasks.describe(f"{name}-small")
