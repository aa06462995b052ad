import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from tasks.convolution import resnet_classifier, shift_and_mirror
from tasks.functional import count_parameters, functional
from tasks.models import ResNet
from tasks.models.convolution import Conv, convolve_patches, convolve_xla
from tasks.models.resnet import ConvNorm


@pytest.fixture(scope="module")
def task():
    return resnet_classifier(
        "digits", widths=(4,), depths=(1,), batch_size=8, meta_fraction=0.1
    )


@pytest.fixture(scope="module")
def start(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.mark.parametrize(
    ("size", "stride", "pad"),
    [(3, 1, True), (3, 2, True), (1, 2, True), (5, 3, True), (5, 1, False)],
)
def test_patches_give_the_convolution_and_its_gradients(size, stride, pad):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, 6, 9, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 4))

    def run(convolve):
        def loss(x, kernel):
            y = convolve(x, kernel, stride, pad)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, kernel)

    for got, expected in zip(
        jax.tree.leaves(run(convolve_patches)),
        jax.tree.leaves(run(convolve_xla)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_platforms_differ_by_how_not_by_what(monkeypatch):
    init, apply = functional(lambda rngs: Conv(3, 4, stride=2, rngs=rngs))
    params, _ = init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 6, 6, 3))
    on_cpu, _ = apply(params, (), x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = str(jax.make_jaxpr(apply)(params, (), x))
    assert "conv_general_dilated" in text
    np.testing.assert_allclose(apply(params, (), x)[0], on_cpu, rtol=1e-5, atol=1e-5)


def test_resnet18_has_the_size_of_the_paper():
    init, _ = functional(lambda rngs: ResNet(3, 10, rngs=rngs))
    assert count_parameters(init) == 11_173_962  # 11.2 million


def test_stages_must_match():
    with pytest.raises(ValueError, match="one entry for each stage"):
        resnet_classifier("digits", widths=(4, 8), depths=(1,))
    with pytest.raises(ValueError, match="width must be an integer >= 1, got 0"):
        resnet_classifier("digits", widths=(0,), depths=(1,))


def test_batch_normalization_by_the_batch_and_by_what_it_recorded():
    init, apply = functional(lambda rngs: ConvNorm(3, 4, rngs=rngs))
    params, before = init(jax.random.key(0))
    x = 5 + 3 * jax.random.normal(jax.random.key(1), (8, 6, 6, 3))
    z, _ = functional(lambda rngs: Conv(3, 4, rngs=rngs))[1](params["conv"], (), x)
    mean, var = (np.asarray(f(z, (0, 1, 2))) for f in (jnp.mean, jnp.var))

    y, after = apply(params, before, x, True)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(after["bn"]["mean"], 0.1 * mean, rtol=1e-3)
    np.testing.assert_allclose(after["bn"]["var"], 0.9 + 0.1 * var, rtol=1e-3)

    y, unchanged = apply(params, after, x, False)
    mean, var = np.asarray(after["bn"]["mean"]), np.asarray(after["bn"]["var"])
    expected = (np.asarray(z) - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert jax.tree.all(jax.tree.map(np.array_equal, unchanged, after))


def test_training_records_statistics_and_evaluation_reads_them(task, start):
    params, model_state = start
    loss, evaluate = jax.jit(task.loss), jax.jit(task.evaluate)
    batch = task.sample(task.data["train"], jax.random.key(1))
    first, after = loss(params, model_state, batch, jax.random.key(2))
    again, _ = loss(params, after, batch, jax.random.key(2))
    assert first == again  # In training mode the running statistics are not read.
    assert jax.tree.structure(after) == jax.tree.structure(model_state)
    assert not np.allclose(after["stem"]["bn"]["mean"], 0)
    data = task.data["valid"]
    metrics = [evaluate(params, state, data)["loss"] for state in (model_state, after)]
    assert metrics[0] != metrics[1]
    assert metrics[0] == evaluate(params, model_state, data)["loss"]


def test_dropout_falls_on_logits():
    def logits(key):
        init, apply = functional(
            lambda rngs: ResNet(1, 10, widths=(4,), depths=(1,), dropout=0.5, rngs=rngs)
        )
        x = jax.random.normal(jax.random.key(1), (20, 8, 8, 1))
        return np.asarray(apply(*init(jax.random.key(0)), x, key=key)[0])

    kept = logits(jax.random.key(0)) != 0
    assert 0.35 < kept.mean() < 0.65
    other = logits(jax.random.key(1))
    both = kept & (other != 0)
    np.testing.assert_allclose(logits(jax.random.key(0))[both], other[both], rtol=1e-5)


def test_a_second_derivative_is_finite(task, start):
    params, model_state = start
    batch = task.sample(task.data["train"], jax.random.key(1))

    @jax.jit
    def squared_gradient(params):
        grads = jax.grad(task.loss, has_aux=True)(
            params, model_state, batch, jax.random.key(2)
        )[0]
        return sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads))

    seconds = jax.tree.leaves(jax.jit(jax.grad(squared_gradient))(params))
    assert all(np.isfinite(leaf).all() for leaf in seconds)
    assert any(np.any(leaf != 0) for leaf in seconds)


def test_images_are_cut_from_the_padded_ones_and_half_are_mirrored():
    image = 1 + np.arange(32 * 32, dtype=np.int32).reshape(32, 32, 1)
    padded = [np.pad(x[..., 0], 4) for x in (image, image[:, ::-1])]
    possible = {
        padded[mirrored][top : top + 32, left : left + 32].tobytes(): (
            mirrored, top, left,
        )
        for mirrored in (0, 1)
        for top in range(9)
        for left in range(9)
    }  # fmt: skip
    batch = {"image": jnp.tile(jnp.asarray(image)[None], (200, 1, 1, 1)), "label": 3}
    moved = jax.jit(shift_and_mirror)(batch, jax.random.key(0))
    assert moved["label"] == 3
    found = np.array([possible[np.asarray(x).tobytes()] for x in moved["image"]])
    assert 0.4 < found[:, 0].mean() < 0.6
    assert found.min(0).tolist() == [0, 0, 0] and found.max(0).tolist() == [1, 8, 8]
    assert len(np.unique(found[:, 1:], axis=0)) > 60  # Of 81: each image its own.


def test_only_training_batches_are_changed(task):
    plain = resnet_classifier("digits", widths=(4,), depths=(1,), augment=False)
    rows = {row.tobytes() for row in np.asarray(plain.data["train"]["image"])}

    def known(task):
        batch = task.sample(task.data["train"], jax.random.key(0))
        return [row.tobytes() in rows for row in np.asarray(batch["image"])]

    assert all(known(plain))
    assert not all(known(task))
    assert task.metadata["sizes"] == {"train": 1295, "valid": 359, "meta": 143}


def test_registered_under_the_names_of_the_paper():
    assert "validate_on='held_out'" in tasks.describe("cifar10-resnet18")
    assert "batch_size=128" in tasks.describe("cifar10-resnet18")
    assert "size=16" in tasks.describe("cifar10-resnet-small")
