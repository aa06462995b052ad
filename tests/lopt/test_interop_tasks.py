"""Tasks of `learned_optimization` here, and ours there: the same losses and batches."""

import dataclasses
import importlib.util
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from lopt.interop import (
    compatibility,
    from_learned_optimization,
    to_learned_optimization,
)

if importlib.util.find_spec("learned_optimization") is None:
    pytest.skip("learned_optimization is not installed", allow_module_level=True)
with compatibility():
    from learned_optimization import training
    from learned_optimization.optimizers import base as opt_base
    from learned_optimization.tasks import base, quadratics
    from learned_optimization.tasks.datasets import base as datasets_base
    from learned_optimization.tasks.fixed import image_mlp

KEY, OLD_KEY = jax.random.key(3), jax.random.PRNGKey(3)
BATCH_SIZE = 16


@pytest.fixture(scope="module")
def digits():
    return tasks.get("digits-mlp", width=8, depth=1, batch_size=BATCH_SIZE)


@pytest.fixture(scope="module")
def lent(digits):
    return to_learned_optimization.task(digits)


@pytest.fixture(scope="module")
def float_datasets(digits):
    """Our data for their networks, which take floats."""

    def sample(data, key):
        batch = digits.sample(data, key)
        return {**batch, "image": batch["image"].astype(jnp.float32) / 16}

    floats = dataclasses.replace(digits, sample=sample)
    return to_learned_optimization.task(floats).datasets


@pytest.fixture(scope="module")
def image_task(float_datasets):
    return image_mlp._MLPImageTask(float_datasets, [8])


class Quadratic(quadratics.QuadraticTask):
    def init(self, key):
        assert key.dtype == jnp.uint32
        return super().init(key)

    def loss(self, params, key, data):
        assert key.dtype == jnp.uint32
        return super().loss(params, key, data)


def test_a_task_without_data():
    theirs = Quadratic(dim=4)
    task = from_learned_optimization.task(theirs, name="bowl")
    params, model_state = task.init(KEY)
    assert (task.name, model_state) == ("bowl", ())
    assert jnp.array_equal(params, theirs.init(OLD_KEY))
    assert task.sample(task.data["train"], KEY) == ()
    loss, model_state = task.loss(params, model_state, (), KEY)
    assert model_state == ()
    assert loss == task.evaluate(params, (), task.data["valid"])["loss"]
    np.testing.assert_allclose(loss, jnp.sum(params**2), rtol=1e-6)


class Data(base.Task):
    datasets = datasets_base.Datasets(*map(itertools.repeat, np.arange(4.0)))


def test_splits_of_theirs():
    data = from_learned_optimization.task(Data(), num_batches=2).data
    found = {split: batches.tolist() for split, batches in data.items()}
    assert found == {"train": [0, 0], "meta": [1, 1], "valid": [2, 2], "test": [3, 3]}


def test_batches_of_theirs(image_task):
    task = from_learned_optimization.task(image_task, num_batches=3)
    image = task.data["train"]["image"]
    assert image.shape[:2] == (3, BATCH_SIZE)
    keys = jax.random.split(KEY, 20)
    drawn = jax.vmap(lambda key: task.sample(task.data["train"], key))(keys)["image"]
    places = [[bool((x == y).all()) for y in image] for x in drawn]
    assert np.sum(places, axis=1).tolist() == [1] * len(keys)
    assert np.all(np.any(places, axis=0))


def test_evaluation_is_the_mean_over_the_batches(image_task):
    task = from_learned_optimization.task(image_task, num_batches=3)
    params, _ = jax.jit(task.init)(KEY)
    loss = jax.jit(lambda batch: image_task.loss(params, OLD_KEY, batch))
    valid = task.data["valid"]
    losses = [
        loss(dict(zip(valid, batch, strict=True)))
        for batch in zip(*valid.values(), strict=True)
    ]
    found = jax.jit(task.evaluate)(params, (), valid)
    assert set(found) == {"loss"}
    np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-6)
    assert task.normalize(jnp.float32(1e9)) == image_task.normalizer(jnp.float32(1e9))


def test_the_state_of_a_model_is_carried(float_datasets):
    norm = {"norm_type": "batch_norm"}
    theirs = image_mlp._MLPImageTaskNorm(float_datasets, [4], **norm)
    task = from_learned_optimization.task(theirs, num_batches=1)

    @jax.jit
    def step(data):
        params, before = task.init(KEY)
        batch = task.sample(data["train"], KEY)
        _, after = task.loss(params, before, batch, KEY)
        return before, after, task.evaluate(params, after, data["valid"])

    before, after, metrics = step(task.data)
    chex.assert_trees_all_equal_shapes(before, after)
    assert jax.tree.leaves(before)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(before, after)
    assert jnp.isfinite(metrics["loss"])


def test_their_task_and_optimizer_are_measured(image_task):
    task = from_learned_optimization.task(image_task, num_batches=20)
    adam = from_learned_optimization.optimizer(opt_base.Adam(0.03))
    results = tasks.evaluate(task, ("adam", adam), seeds=1, steps=50, progress=False)
    (record,) = results.records
    assert record.valid["loss"][-1] < 0.7 * record.valid["loss"][0]


def test_ours_is_a_task_of_theirs(digits, lent):
    family = base.single_task_to_family(lent)
    assert isinstance(lent, base.Task)
    assert (family.name, lent.name) == (digits.name, digits.name)
    params, state = digits.init(KEY)
    chex.assert_trees_all_equal(lent.init(OLD_KEY), params)
    batch = training.vec_get_batch(family, 2)
    assert batch["image"].shape[:2] == (2, BATCH_SIZE)
    batch = jax.tree.map(lambda x: x[0], batch)
    expected, _ = digits.loss(params, state, batch, KEY)
    assert lent.loss(params, OLD_KEY, batch) == expected
    assert lent.loss_and_aux(params, OLD_KEY, batch) == (expected, {})
    assert lent.loss_with_state_and_aux(params, state, OLD_KEY, batch)[0] == expected
    assert lent.normalizer(jnp.float32(1e9)) == digits.normalize(jnp.float32(1e9))


def test_our_data_sets_there(digits, lent):
    assert lent.datasets.extra_info["num_classes"] == 10
    abstract = lent.datasets.abstract_batch
    again = to_learned_optimization.task(digits)
    for split, ours in (
        ("train", "train"),
        ("outer_valid", "valid"),
        ("test", "valid"),
    ):
        batch = next(lent.datasets.split(split))
        assert isinstance(batch["image"], np.ndarray)
        chex.assert_trees_all_equal_shapes_and_dtypes(batch, abstract)
        rows = np.asarray(digits.data[ours]["image"])
        rows = rows.reshape(len(rows), -1)
        assert all((rows == image.ravel()).all(1).any() for image in batch["image"])
    first, second = (next(again.datasets.split("inner_valid")) for _ in range(2))
    assert np.any(first["image"] != second["image"])


def test_streamed_batches_there(digits):
    def stream(seed, start, stop):
        return {"step": np.arange(start, stop)}

    lent = to_learned_optimization.task(dataclasses.replace(digits, stream=stream))
    train = lent.datasets.split("train")
    assert [int(next(train)["step"]) for _ in range(3)] == [0, 1, 2]


def test_a_model_with_a_state_there(digits):
    counting = dataclasses.replace(
        digits,
        init=lambda key: (digits.init(key)[0], {"steps": jnp.zeros(())}),
        loss=lambda params, state, batch, key: (
            digits.loss(params, (), batch, key)[0],
            {"steps": state["steps"] + 1},
        ),
    )
    lent = to_learned_optimization.task(counting)
    params, state = lent.init_with_state(OLD_KEY)
    batch = next(lent.datasets.split("train"))
    assert lent.loss_with_state(params, state, OLD_KEY, batch)[1] == {"steps": 1}
    for call in (lambda: lent.init(KEY), lambda: lent.loss(params, KEY, batch)):
        with pytest.raises(ValueError, match="init_with_state"):
            call()


def test_there_and_back_without_data():
    task = from_learned_optimization.task(quadratics.QuadraticTask(dim=4))

    def loss(params, model_state, batch, key):
        assert batch == {"image": ()}
        return task.loss(params, model_state, (), key)

    empty = dataclasses.replace(task, sample=lambda *_: {"image": ()}, loss=loss)
    lent = to_learned_optimization.task(empty)
    assert lent.datasets is None
    params = lent.init(OLD_KEY)
    assert lent.loss(params, OLD_KEY, ()) == task.loss(params, (), (), KEY)[0]


def test_bad_input():
    with pytest.raises(ValueError, match="num_batches must be an integer >= 1, got 0"):
        from_learned_optimization.task(quadratics.QuadraticTask(), num_batches=0)
    with pytest.raises(ValueError, match="is a family of tasks"):
        from_learned_optimization.task(quadratics.FixedDimQuadraticFamily(dim=2))
