import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tasks
from tasks import classification
from tasks.data import Dataset


@pytest.fixture(scope="module")
def task():
    return tasks.get("digits-mlp", width=16, depth=1)


@pytest.fixture(scope="module")
def start(task):
    return jax.jit(task.init)(jax.random.key(0))


def numpy_metrics(task, params, data):
    pixels = np.asarray(task.data["train"]["image"], np.float64)
    x = (np.asarray(data["image"], np.float64) - pixels.mean()) / pixels.std()
    hidden, readout = params["layers"]["0"], params["readout"]
    x = x.reshape(len(x), -1) @ np.asarray(hidden["kernel"]) + np.asarray(
        hidden["bias"]
    )
    logits = np.maximum(x, 0) @ np.asarray(readout["kernel"])
    logits = logits + np.asarray(readout["bias"])
    label = np.asarray(data["label"])
    right = np.take_along_axis(logits, label[:, None], axis=1)[:, 0]
    losses = np.log(np.exp(logits).sum(1)) - right
    return {"loss": losses.mean(), "accuracy": (logits.argmax(1) == label).mean()}


@pytest.mark.parametrize("batch_size", [64, 100, 359, 1024])
def test_evaluate_equals_numpy_on_an_odd_split(task, start, batch_size, monkeypatch):
    monkeypatch.setattr(classification, "_EVALUATION_BATCH_SIZE", batch_size)
    data = task.data["valid"]
    assert len(data["label"]) == 359
    metrics = jax.jit(lambda *a: task.evaluate(*a))(*start, data)
    expected = numpy_metrics(task, start[0], data)
    for name in ("loss", "accuracy"):
        assert metrics[name].dtype == jnp.float32 and metrics[name].shape == ()
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)


def test_loss_of_a_batch_equals_numpy(task, start):
    batch = task.sample(task.data["train"], jax.random.key(1))
    assert batch["image"].shape == (64, 8, 8, 1)
    loss, model_state = task.loss(*start, batch, jax.random.key(0))
    assert model_state == ()
    expected = numpy_metrics(task, start[0], batch)["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_at_the_start_is_about_that_of_guessing():
    task = tasks.get("digits-mlp")
    keys = jax.random.split(jax.random.key(0), 8)
    batch = task.data["valid"]

    def loss(key):
        return task.loss(*task.init(key), batch, key)[0]

    losses = jax.jit(jax.vmap(loss))(keys)
    np.testing.assert_allclose(losses, math.log(10), atol=0.4)


def test_it_learns_a_small_batch_by_heart(task, start):
    data = jax.tree.map(lambda array: array[:32], task.data["train"])
    optimizer = optax.adam(3e-2)

    @jax.jit
    def train(params, model_state, data):
        def step(carry, key):
            params, opt_state = carry
            grads, _ = jax.grad(task.loss, has_aux=True)(params, model_state, data, key)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        carry = params, optimizer.init(params)
        keys = jax.random.split(jax.random.key(0), 60)
        (params, _), _ = jax.lax.scan(step, carry, keys)
        return task.evaluate(params, model_state, data)

    metrics = train(*start, data)
    assert metrics["accuracy"] == 1
    assert metrics["loss"] < 0.05


def test_images_stay_bytes_on_the_device(task):
    for split in task.data.values():
        assert isinstance(split["image"], jax.Array)
        assert split["image"].dtype == jnp.uint8


def test_data_are_arguments_of_what_is_compiled(task, start):
    key = jax.random.key(0)
    data = task.data["train"]
    batch = task.sample(data, key)
    for function, arguments in [
        (task.sample, (data, key)),
        (task.loss, (*start, batch, key)),
        (task.evaluate, (*start, data)),
    ]:
        constants = jax.make_jaxpr(function)(*arguments).consts
        assert sum(np.size(constant) for constant in constants) < 10


def test_seeds_in_parallel_equal_seeds_one_by_one(task):
    def run(data, key):
        params, model_state = task.init(key)

        def step(params, key):
            batch = task.sample(data, key)
            grads, _ = jax.grad(task.loss, has_aux=True)(
                params, model_state, batch, key
            )
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        params, _ = jax.lax.scan(step, params, jax.random.split(key, 3))
        return params

    keys = jax.random.split(jax.random.key(0), 3)
    data = task.data["train"]
    together = jax.jit(jax.vmap(run, in_axes=(None, 0)))(data, keys)
    alone = jax.tree.map(
        lambda *p: jnp.stack(p), *(jax.jit(run)(data, k) for k in keys)
    )
    chex.assert_trees_all_close(together, alone, rtol=1e-4, atol=1e-6)


def test_colours_are_normalized_each_for_itself():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 4, 4, 3)).astype(np.uint8)
    image[..., 2] = 7 + image[..., 2] // 9
    split = {"image": image, "label": np.zeros(50, np.int32)}
    seen = []

    def build(rngs):
        class Spy(classification.MLP):
            def __call__(self, inputs):
                seen.append(inputs)
                return super().__call__(inputs)

        return Spy(48, 10, width=4, depth=1, rngs=rngs)

    data = Dataset("own", {"train": split, "valid": split}, 10, "a test", {})
    task = classification.classifier(data, build, batch_size=4, metadata={})
    task.loss(*task.init(jax.random.key(0)), split, jax.random.key(0))
    np.testing.assert_allclose(seen[0].mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(seen[0].std((0, 1, 2)), 1, rtol=1e-4)


def test_metadata_identify_the_task(task):
    assert task.metadata["num_parameters"] == 65 * 16 + 17 * 10
    assert task.metadata["sizes"] == {"train": 1438, "valid": 359}
    assert set(task.metadata["sha256"]) == {"train", "valid"}
    assert (task.metadata["width"], task.metadata["batch_size"]) == (16, 64)


def test_losses_that_meta_training_sees():
    losses = jnp.array([0.5, 3.0, 99.0, -1.0, jnp.nan, jnp.inf, -jnp.inf])
    most = 1.5 * math.log(10)
    np.testing.assert_allclose(
        tasks.get("digits-mlp").normalize(losses),
        [0.5, 3.0, most, 0, most, most, most],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        tasks.get("digits-vit").normalize(losses),
        [5 / math.log(20), 10, 10, 0, 10, 10, 10],
        rtol=1e-6,
    )
    language_model = tasks.get("python-docs-lm")
    np.testing.assert_array_equal(language_model.normalize(losses), losses)


@pytest.mark.parametrize("name", ["digits-mlp", "digits-vit"])
def test_pre_activations_are_those_behind_the_loss(name):
    task = tasks.get(name, width=8, depth=1, batch_size=4)
    params, model_state = jax.jit(task.init)(jax.random.key(0))
    batch = task.sample(task.data["train"], jax.random.key(1))

    @jax.jit
    def loss_of_logits(params, batch):
        logits = task.preactivations(params, model_state, batch)["logits"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, batch["label"]
        ).mean()

    loss, _ = jax.jit(task.loss)(params, model_state, batch, jax.random.key(0))
    np.testing.assert_allclose(loss_of_logits(params, batch), loss, rtol=1e-5)


def test_smaller_images():
    task = tasks.get("digits-mlp", size=4)
    assert task.data["train"]["image"].shape == (1438, 4, 4, 1)
    assert task.metadata["size"] == 4 and task.name == "digits-mlp(size=4)"
    plain = tasks.get("digits-mlp").metadata
    assert "size" not in plain and "grey" not in plain
    assert tasks.get("digits-mlp", grey=True).metadata["grey"] is True
    with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
        tasks.get("digits-mlp", size=0)
