import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tasks

SMALL = {"embedding_size": 4, "width": 4, "length": 12, "batch_size": 8}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "imdb").mkdir()
    for split, num_rows in (("train", 100), ("test", 30)):
        with open(root / "imdb" / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "text"])
            for i in range(num_rows):
                mood = ("dull", "great")[i % 2]
                writer.writerow([i % 2, f"A {mood} film, number {i // 20}."])
    return root


@pytest.fixture(scope="module")
def task(data_dir):
    return tasks.get("imdb", data_dir=data_dir, **SMALL)


@pytest.fixture(scope="module")
def start(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_splits(task, data_dir):
    assert task.metadata["sizes"] == {"train": 90, "valid": 10, "test": 30}
    assert task.metadata["vocab_size"] == 14
    assert task.data["train"]["tokens"].dtype == jnp.uint16
    other = tasks.get(
        "imdb", data_dir=data_dir, validate_on="test", meta_fraction=0.1, **SMALL
    )
    assert other.metadata["sizes"] == {"train": 90, "valid": 30, "meta": 10}


def test_training_has_noise_evaluation_none(task, start):
    loss, evaluate = jax.jit(task.loss), jax.jit(task.evaluate)
    batch = task.sample(task.data["train"], jax.random.key(1))
    losses = [loss(*start, batch, jax.random.key(i))[0] for i in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert start[1] == () == loss(*start, batch, jax.random.key(0))[1]
    data = task.data["valid"]
    assert evaluate(*start, data)["loss"] == evaluate(*start, data)["loss"]


def test_a_second_derivative_is_finite(task, start):
    batch = task.sample(task.data["train"], jax.random.key(1))

    @jax.jit
    @jax.grad
    def second(params):
        grads = jax.grad(lambda p: task.loss(p, (), batch, jax.random.key(0))[0])
        return sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads(params)))

    leaves = jax.tree.leaves(second(start[0]))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.any(leaf != 0) for leaf in leaves)


def test_it_learns_what_a_word_tells(task, start):
    optimizer = optax.adam(0.03)

    @jax.jit
    def train(params, data):
        def step(carry, key):
            params, opt_state = carry
            batch = task.sample(data["train"], key)
            grads, _ = jax.grad(task.loss, has_aux=True)(params, (), batch, key)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        carry = params, optimizer.init(params)
        keys = jax.random.split(jax.random.key(0), 150)
        (params, _), _ = jax.lax.scan(step, carry, keys)
        return task.evaluate(params, (), data["valid"])

    assert train(start[0], dict(task.data))["accuracy"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_words": 2}, "max_words must be an integer >= 3, got 2"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
        ({"validate_on": "train"}, "unknown validate_on 'train'"),
        ({"length": 0}, "length must be an integer >= 1"),
    ],
)
def test_values_that_are_not_allowed(data_dir, options, message):
    with pytest.raises(ValueError, match=message):
        tasks.get("imdb", data_dir=data_dir, **options)
