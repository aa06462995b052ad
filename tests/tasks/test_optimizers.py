"""Specs: what they say, what is refused, and what factories learn of the run."""

import sys
import types

import jax.numpy as jnp
import optax
import pytest
from toys import quadratic

from tasks import optimizers
from tasks.optimizers import resolve, resolve_all


@pytest.fixture
def module(monkeypatch):
    """An importable module `somebodys` to put factories into."""
    made = types.ModuleType("somebodys")
    monkeypatch.setitem(sys.modules, "somebodys", made)
    return made


def test_a_spec_builds_what_it_says():
    built = resolve("optax:sgd(0.5, momentum=0.9)").build(quadratic(), 10)
    params = {"x": jnp.ones(3)}
    state = built.init(params)
    for _ in range(2):
        updates, state = built.update(params, state, params, value=jnp.float32(0))
    assert jnp.allclose(updates["x"], -0.5 * 1.9)


def test_a_spec_reads_back():
    spec = "optax.contrib:muon(0.02, ns_coeffs=(1.0, -2.0, 3.0), nesterov=False)"
    assert resolve(spec).spec == spec
    assert resolve(resolve(spec).spec) == resolve(spec)


def test_attributes_of_attributes_and_ready_transformations(module):
    module.space = types.SimpleNamespace(ready=optax.sgd(0.1))
    optimizer = resolve("somebodys:space.ready")
    assert optimizer.name == "ready"
    assert optimizer.spec == "somebodys:space.ready"
    optimizer.build(quadratic(), 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adamw", r"'adamw' is not 'package.module:attribute'"),
        ("optax:", r"is not 'package.module:attribute'"),
        ("optax:adamw(1e-3", r"cannot be parsed: '\(' was never closed"),
        ("optax:adamw(1e-3)(2)", r"something after the closing parenthesis"),
        ("nowhere:adamw(1e-3)", r"module 'nowhere' does not import"),
        ("optax:adamwww(1e-3)", r"'optax' has no 'adamwww'; close names: .*adamw"),
        (
            "optax:adamw(learning_rate=1/3)",
            r"learning_rate is '1 / 3'; allowed are lit",
        ),
        ("optax:adamw(*[1e-3])", r"argument 1 is '\*\[0.001\]'"),
        ("optax:adamw(**{'b1': 0.9})", r"\*\* is"),
        ("optax:adamw(b1=0.9, b1=0.8)", r"repeats a keyword"),
        ("optax:adamw(lr=1e-3)", r"no parameter 'lr'; it takes learning_rate, b1"),
        ("optax:adamw(learning_rat=1e-3)", r"did you mean 'learning_rate'\?"),
        ("optax:adamw", r"missing a required argument: 'learning_rate'"),
        (
            "optax:adamw(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)",
            r"too many positional arguments",
        ),
        ("optax:tree", r"optax:tree is a module"),
        (3, r"optimizer 3 is a int; allowed are a spec"),
        (("name", 3), r"allowed are a spec"),
    ],
)
def test_what_a_spec_gets_wrong_is_said(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve(spec)


def test_a_spec_is_never_evaluated(module):
    module.touched = []
    with pytest.raises(ValueError, match="allowed are literals"):
        resolve("optax:sgd(__import__('somebodys').touched.append(1))")
    assert not module.touched


def test_the_result_must_be_a_gradient_transformation(module):
    module.factory = lambda: "a string"
    with pytest.raises(ValueError, match="gives a str, which is not an optax"):
        resolve("somebodys:factory").build(quadratic(), 1)


def test_factories_ask_for_what_they_need_to_know(module):
    seen = []

    def factory(learning_rate, width_multipliers, num_steps, labels=None):
        seen.append((learning_rate, width_multipliers, num_steps, labels))
        return optax.sgd(learning_rate)

    module.factory = factory
    task = quadratic()
    for optimizer in (
        "somebodys:factory(0.1)",
        "somebodys:factory(0.1, num_steps=7)",
        "somebodys:factory(0.1, None)",
    ):
        resolve(optimizer).build(task, 100)
    assert seen == [
        (0.1, {"x": 3.0}, 100, {"x": "vector"}),
        (0.1, {"x": 3.0}, 7, {"x": "vector"}),
        (0.1, None, 100, {"x": "vector"}),
    ]


def test_python_objects_are_optimizers_too():
    assert resolve(("mine", optax.sgd(0.1))).name == "mine"
    assert resolve(("mine", "optax:sgd(0.1)")).spec == "optax:sgd(0.1)"
    factory = resolve(("mine", lambda num_steps: optax.sgd(1 / num_steps)))
    assert factory.name == factory.spec == "mine"
    factory.build(quadratic(), 10)


def test_equal_names_are_spelled_out_and_duplicates_refused():
    names = [
        o.name for o in resolve_all(["optax:sgd(.1)", "optax:sgd(.2)", "optax:lion(1)"])
    ]
    assert names == ["sgd(0.1)", "sgd(0.2)", "lion"]
    with pytest.raises(ValueError, match="given twice"):
        resolve_all(["optax:sgd(.1)", "optax:sgd(.1)"])


def test_config_holds_defaults_and_no_addresses():
    config = resolve("optax:adamw(1e-3)").config()
    assert config["arguments"]["learning_rate"] == 1e-3
    assert config["arguments"]["b1"] == 0.9
    assert "0x" not in str(resolve("optax.contrib:muon(1e-3)").config())


def test_check_finds_misfits_without_compiling(module):
    def demanding():
        def update(updates, state, params=None, *, gradient_of_something_else):
            return updates, state

        return optax.GradientTransformationExtraArgs(lambda p: (), update)

    def drifting():
        def update(updates, state, params=None):
            return updates, state.astype(jnp.float16)

        return optax.GradientTransformation(lambda p: jnp.zeros(()), update)

    module.demanding, module.drifting = demanding, drifting
    with pytest.raises(
        ValueError, match=r"does not run on task 'quadratic': TypeError"
    ):
        optimizers.check(resolve("somebodys:demanding"), quadratic(), 1)
    with pytest.raises(ValueError, match="changes the structure, shapes or dtypes"):
        optimizers.check(resolve("somebodys:drifting"), quadratic(), 1)
    optimizers.check(resolve("optax:adamw(1e-3)"), quadratic(), 1)
