"""What a run depends on is written down, and a resumed run is held to it."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meta_toys import ToyES, quadratic, sgd

import lopt
from lopt.description import describe
from lopt.truncation import Constant


@dataclasses.dataclass
class Options:
    rate: float
    names: frozenset


def scaled(theta, by=2.0, *, plus=1.0):
    return by * theta + plus


def closure(value):
    return lambda theta: theta + value


class Counter:
    def __init__(self, start):
        self.start = start

    def itself(self):
        return self


ALIKE = {
    "numbers": lambda: [1, True, None, 2.5, "a", np.float32(0.5), float("nan")],
    "array": lambda: {"numpy": np.arange(3.0), "jax": jnp.arange(3)},
    "key": lambda: jax.random.key(3),
    "set": lambda: {"one", "two", "three", "four"},
    "dataclass": lambda: Options(0.1, frozenset({"x", "y", "z"})),
    "optax": lambda: optax.inject_hyperparams(optax.adam)(
        optax.cosine_decay_schedule(1e-3, 100), mu_dtype=jnp.bfloat16
    ),
    "estimator": lambda: lopt.pes(8, 0.01, 50),
    "jitted": lambda: jax.jit(closure(0.1)),
    "partial": lambda: functools.partial(scaled, by=3.0),
    "membership": lambda: lambda name: name in {"one", "two", "three", "four"},
}


def test_alike_are_described_alike_in_every_process():
    def here():
        return json.dumps({name: describe(make()) for name, make in ALIKE.items()})

    assert here() == here()
    code = (
        "import json; import test_description as t; "
        "print(json.dumps({n: t.describe(m()) for n, m in t.ALIKE.items()}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    there = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here()
    assert "0x" not in here()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closure(0.1), closure(0.2)),
        (lambda theta: theta * 2, lambda theta: theta * 3),
        (lambda theta: jnp.exp(theta), lambda theta: jnp.log(theta)),
        (lambda theta, by=1: theta * by, lambda theta, by=2: theta * by),
        (lambda theta, *, by=1: theta * by, lambda theta, *, by=2: theta * by),
        (functools.partial(scaled, by=1.0), functools.partial(scaled, by=2.0)),
        (functools.partial(scaled, 1.0), functools.partial(scaled, 2.0)),
        (lambda: [x + 1 for x in "ab"], lambda: [x + 2 for x in "ab"]),
        (jax.jit(closure(0.1)), jax.jit(closure(0.2))),
        (Options(0.1, frozenset()).__repr__, Options(0.2, frozenset()).__repr__),
        (optax.adam(1e-2), optax.adam(1e-1)),
        (optax.adam(1e-2), optax.rmsprop(1e-2)),
        (np.arange(3), np.arange(3)[::-1]),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(3, np.int32), np.zeros(3, np.float32)),
        (jax.random.key(0), jax.random.key(1)),
        (float("nan"), float("inf")),
        ({"a", "b"}, {"a", "c"}),
    ],
)
def test_what_differs_is_described_differently(one, other):
    assert describe(one) != describe(other)


def test_a_number_that_a_function_takes_from_its_module(monkeypatch):
    def scale(theta):
        return theta * RATE

    before = describe(scale)
    monkeypatch.setitem(globals(), "RATE", 0.2)
    assert describe(scale) != before


RATE = 0.1


def test_what_holds_itself_is_described_once():
    def countdown(n):
        return n and countdown(n - 1)

    assert describe(countdown)["closes_over"] == {"countdown": "..."}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"meta_optimizer": optax.adam(1e-1)}, r"step_size was -0.01, is -0.1"),
        ({"to_hyperparams": lambda theta: jax.tree.map(lambda x: x * 3, theta)}, "3"),
        ({"config": {"limit": float("inf")}}, "user.limit was 'nan', is 'inf'"),
    ],
)
def test_only_the_configuration_that_was_stopped_goes_on(tmp_path, changed, message):
    def train(steps, **options):
        given = {
            "meta_optimizer": optax.adam(1e-2),
            "to_hyperparams": lambda theta: jax.tree.map(lambda x: x * 2, theta),
            "config": {"limit": float("nan")},
            **options,
        }
        return lopt.meta_train(
            sgd(),
            {"learning_rate": 0.1},
            quadratic(),
            ToyES(),
            steps=steps,
            schedule=Constant(20),
            mesh=lopt.particle_mesh(jax.devices()[:1]),
            checkpoint_dir=tmp_path,
            progress=False,
            **given,
        )

    train(2)
    if message is None:
        assert train(2, resume=True).steps == 2
    else:
        with pytest.raises(ValueError, match=f"another configuration: .*{message}"):
            train(2, resume=True, **changed)
