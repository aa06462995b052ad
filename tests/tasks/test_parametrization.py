"""muP: rules, roles from shapes, width multipliers, and how tasks carry them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tasks
from tasks.functional import functional
from tasks.models import MLP, TransformerLM, ViT
from tasks.optimizers import resolve
from tasks.parametrization import (
    MAXIMAL_UPDATE,
    STANDARD,
    Parametrization,
    resolve_parametrization,
)
from tasks.roles import roles, width_multipliers


def shapes(**leaves):
    return {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in leaves.items()}


def convolutional(width):
    return shapes(
        first=(3, 3, 4, width),
        bias=(width,),
        second=(3, 3, width, 2 * width),
        query=(width, 2, width // 2),
        out=(2, width // 2, width),
        readout=(width, 7),
        readout_bias=(7,),
        scale=(),
        table=(11, width),
    )


QUERY = {"query": (0,)}


def test_roles_come_from_what_grows():
    assert roles(convolutional(8), convolutional(16), fan_in_axes=QUERY) == {
        "first": "input",
        "bias": "input",
        "second": "hidden",
        "query": "hidden",
        "out": "hidden",
        "readout": "output",
        "readout_bias": "input",
        "scale": "input",
        "table": "input",
    }


def test_a_narrower_twin_says_the_same():
    wider, narrower = convolutional(16), convolutional(4)
    assert roles(convolutional(8), wider) == roles(convolutional(8), narrower)


def test_multipliers_are_fan_ins_or_ratios_of_them():
    hidden = {"second": 72.0, "query": 8.0, "out": 8.0}
    trees = convolutional(8), convolutional(16)
    found = width_multipliers(*trees, fan_in_axes=QUERY)
    assert found == {k: hidden.get(k, 1.0) for k in trees[0]}
    assert all(type(m) is float for m in found.values())
    found = width_multipliers(*trees, convolutional(4), fan_in_axes=QUERY)
    assert found == {k: 2.0 if k in hidden else 1.0 for k in trees[0]}
    found = width_multipliers(*trees, hidden_learning_rate_multiplier=4.0)
    assert (found["out"], found["readout"]) == (2.0, 1.0)


def test_overrides_by_regular_expression():
    found = width_multipliers(
        convolutional(8),
        convolutional(16),
        fan_in_axes=QUERY,
        overrides={"^read": "hidden", "second|out": "input"},
    )
    assert found == {
        **dict.fromkeys(convolutional(8), 1.0),
        "query": 8.0,
        "readout": 8.0,
        "readout_bias": 1.0,
    }


@pytest.mark.parametrize(
    ("twin", "options", "message"),
    [
        (shapes(w=(4, 4, 4)), {}, r"w: 3 axes of \(2, 2, 2\) grow .* overrides"),
        (shapes(v=(2, 2, 2)), {}, r"may differ by the sizes"),
        (shapes(w=(2, 2)), {}, r"may differ by the sizes .* \{'w': 3\} and \{'w': 2\}"),
        (shapes(w=(2, 4, 4)), {"overrides": {"w": "wide"}}, r"unknown role 'wide'"),
        (shapes(w=(2, 4, 4)), {"overrides": {"x": "input"}}, r"'x' matches no param"),
        (shapes(w=(2, 4, 4)), {"fan_in_axes": {"x": (0,)}}, r"fan_in_axes: 'x' match"),
        (shapes(w=(2, 4, 4)), {"fan_in_axes": {"w": (3,)}}, r"'w' the axes \(3,\)"),
    ],
)
def test_what_roles_cannot_be_told_of(twin, options, message):
    with pytest.raises(ValueError, match=message):
        roles(shapes(w=(2, 2, 2)), twin, **options)


def test_fan_in_axes_may_count_from_the_end():
    small, twin = shapes(w=(2, 2)), shapes(w=(4, 4))
    found = width_multipliers(small, twin, fan_in_axes={"w": (-2,)})
    assert found == width_multipliers(small, twin, fan_in_axes={"w": (0,)})


def test_three_growing_axes_are_fine_with_a_role():
    twin = shapes(w=(4, 4, 4))
    assert roles(shapes(w=(2, 2, 2)), twin, overrides={"w": "input"}) == {"w": "input"}


def test_parametrizations_by_name():
    assert resolve_parametrization("sp") == STANDARD
    assert resolve_parametrization("mup", 4) == dataclasses.replace(
        MAXIMAL_UPDATE, base_width=4
    )
    own = Parametrization(init_exponent=0.25)
    assert resolve_parametrization(own) is own or resolve_parametrization(own) == own


@pytest.mark.parametrize(
    ("which", "base_width", "message"),
    [
        ("mu", None, r"unknown parametrization 'mu'"),
        ("mup(base=3)", None, r"unknown parametrization field 'base'"),
        ("mup(0.5)", None, r"name the field of each value"),
        (
            "mup(input_multiplier=0.0)",
            None,
            r"input_multiplier must be a finite number > 0, got 0.0",
        ),
        (
            "mup(input_multiplier='4')",
            None,
            r"must be a finite number > 0, got '4'",
        ),
        ("mup", 0, r"base_width must be an integer >= 1, got 0"),
        ("mup", 8.0, r"base_width must be an integer >= 1, got 8.0"),
        ("sp", 8, r"base_width=8 changes nothing in standard"),
        ("sp(base_width=8)", None, r"base_width=8 changes nothing in standard"),
        ("mup(init_exponent='1')", None, r"init_exponent must be .* number, got '1'"),
        ("mup(output_exponent=None)", None, r"output_exponent must be .*, got None"),
        ("mup(update_exponent=1e999)", None, r"update_exponent must be .*, got inf"),
        ("mup(attention_exponent=True)", None, r"attention_exponent must be .* True"),
        ("mup(zero_readout=1)", None, r"zero_readout must be True or False, got 1"),
        ("mup(input_multiplier=True)", None, r"input_multiplier must be .* got True"),
        (None, None, r"must be a name or a Parametrization, got None"),
        (2, None, r"must be a name or a Parametrization, got 2"),
    ],
)
def test_parametrizations_that_are_refused(which, base_width, message):
    with pytest.raises(ValueError, match=message):
        resolve_parametrization(which, base_width)


@pytest.mark.parametrize("name", ["digits-mlp", "digits-vit", "python-docs-lm"])
def test_a_base_width_beyond_the_width_is_refused(name):
    with pytest.raises(ValueError, match="base_width=96 is larger than width=64"):
        tasks.get(name, width=64, base_width=96, parametrization="mup")


def test_a_base_model_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="base_width=6: width=6 must be a multiple of"):
        tasks.get("digits-vit", base_width=6, parametrization="mup")


def test_the_multipliers_of_tasks():
    absolute = tasks.get("digits-mlp", width=48, parametrization="mup")
    assert absolute.width_multipliers == {
        "layers": {
            "0": {"bias": 1.0, "kernel": 1.0},
            "1": {"bias": 1.0, "kernel": 48.0},
        },
        "readout": {"bias": 1.0, "kernel": 1.0},
    }
    assert absolute.width_ratio == 48.0
    relative = tasks.get("digits-mlp", width=48, parametrization="mup", base_width=12)
    assert relative.width_multipliers["layers"]["1"]["kernel"] == 4.0
    assert relative.width_ratio == 4.0
    standard = tasks.get("digits-mlp", width=48)
    assert (standard.width_multipliers, standard.width_ratio) == (None, 1.0)
    faster = tasks.get(
        "digits-mlp", parametrization="sp(hidden_learning_rate_multiplier=4.0)"
    )
    assert faster.width_multipliers["layers"]["1"] == {"bias": 1.0, "kernel": 0.25}
    assert faster.width_ratio == 1.0
    linear = tasks.get("digits-mlp", depth=0, parametrization="mup")
    assert set(jax.tree.leaves(linear.width_multipliers)) == {1.0}


def test_the_fan_in_of_the_output_projection_of_a_vit():
    options = {"width": 32, "num_heads": 4, "parametrization": "mup"}
    theory = tasks.get("digits-vit", **options).width_multipliers
    legacy = tasks.get("digits-vit", legacy_vit_out=True, **options).width_multipliers
    for block in theory["blocks"].values():
        assert block["attention"]["out"] == {"bias": 1.0, "kernel": 32.0}
        block["attention"]["out"]["kernel"] = 8.0
    assert theory == legacy
    assert tasks.get("digits-vit", legacy_vit_out=True).width_multipliers is None


def test_the_legacy_fan_in_of_a_vit_follows_the_rules():
    def out(legacy, **options):
        options = {"width": 32, "num_heads": 4, **options}
        task = tasks.get("digits-vit", legacy_vit_out=legacy, **options)
        return task.width_multipliers["blocks"]["0"]["attention"]["out"]["kernel"]

    # One head of 8 over one of 2 is what 32 is over 8.
    relative = {"parametrization": "mup", "base_width": 8}
    assert out(True, **relative) == out(False, **relative) == 4.0
    root = {"parametrization": "mup(update_exponent=0.5)"}
    assert out(True, **root) == pytest.approx(8**0.5)
    faster = {"parametrization": "sp(hidden_learning_rate_multiplier=4.0)"}
    assert out(True, **faster) == out(False, **faster) == 0.25


def test_only_mup_shows_in_the_metadata():
    assert "parametrization" not in tasks.get("digits-mlp").metadata
    metadata = tasks.get("digits-mlp", parametrization="mup").metadata
    assert metadata["parametrization"] == dataclasses.asdict(MAXIMAL_UPDATE)


def mlp(width, rules, rngs):
    return MLP(20, 7, width=width, depth=2, parametrization=rules, rngs=rngs)


def lm(width, rules, rngs):
    return TransformerLM(
        9,
        context=6,
        width=width,
        depth=1,
        num_heads=2,
        use_bias=True,
        parametrization=rules,
        rngs=rngs,
    )


def vit(width, rules, rngs):
    return ViT(
        (8, 8, 3),
        7,
        patch_size=4,
        width=width,
        depth=1,
        num_heads=2,
        parametrization=rules,
        rngs=rngs,
    )


@pytest.mark.parametrize("build", [mlp, lm, vit])
def test_initialisation_under_mup(build):
    init, _ = functional(lambda rngs: build(64, MAXIMAL_UPDATE, rngs))
    draws, _ = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 8))
    for path, leaf in jax.tree.leaves_with_path(draws):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rows = np.asarray(leaf).reshape(8, -1)
        if "readout/kernel" in name or "class_token" in name:
            assert not rows.any()
        elif "norm" in name:
            assert np.all(rows == ("scale" in name))
        elif "bias" in name:
            assert np.abs(rows).max() > 2
            np.testing.assert_allclose(rows.std(), 1, rtol=0.15)
        else:
            std = np.prod(leaf.shape[1:-1]) ** -0.5
            assert np.abs(rows).max() <= 2 * std
            np.testing.assert_allclose(rows.std(), 0.88 * std, rtol=0.05)


@pytest.mark.parametrize("build", [mlp, lm, vit])
@pytest.mark.parametrize("which", ["input", "output"])
def test_multipliers_scale_what_they_name(build, which):
    inputs = {
        mlp: jnp.ones((3, 20)),
        lm: jnp.arange(12).reshape(2, 6) % 9,
        vit: jnp.ones((2, 8, 8, 3)),
    }[build]

    @partial(jax.jit, static_argnums=0)
    def preactivations(rules, params):
        _, apply = functional(lambda rngs: build(8, rules, rngs))
        return apply(params, (), inputs, method="preactivations")[0]

    init, apply = functional(lambda rngs: build(8, STANDARD, rngs))
    params, _ = jax.jit(init)(jax.random.key(0))
    plain = preactivations(STANDARD, params)
    logits = jax.jit(lambda p: apply(p, (), inputs)[0])(params)
    np.testing.assert_allclose(logits, plain["logits"], rtol=1e-5, atol=1e-6)
    first = "layers/0" if build is mlp else "embedding"
    name = first if which == "input" else "logits"
    rules = dataclasses.replace(STANDARD, **{f"{which}_multiplier": 3.0})
    scaled = preactivations(rules, params)
    np.testing.assert_allclose(scaled[name], 3 * plain[name], rtol=1e-5)
    if build is mlp:  # ReLU layers without biases pass the factor on.
        np.testing.assert_allclose(scaled["logits"], 3 * plain["logits"], rtol=1e-5)
    if which == "output":
        for other in plain.keys() - {"logits"}:
            np.testing.assert_allclose(scaled[other], plain[other], rtol=1e-5)


def test_logits_are_over_the_width_and_attention_over_the_head_size():
    rules = dataclasses.replace(STANDARD, output_exponent=1.0, attention_exponent=1.0)
    params, _ = functional(lambda rngs: lm(16, STANDARD, rngs))[0](jax.random.key(0))
    tokens = jnp.arange(6)[None]

    def preactivations(rules):
        _, apply = functional(lambda rngs: lm(16, rules, rngs))
        return apply(params, (), tokens, method="preactivations")[0]

    plain, mup = preactivations(STANDARD), preactivations(rules)
    attention = "blocks/0/attention_logits"
    np.testing.assert_allclose(
        mup[attention], plain[attention] / np.sqrt(8), rtol=1e-5, atol=1e-7
    )
    assert jnp.abs(mup["blocks/0/attention"] - plain["blocks/0/attention"]).max() > 1e-4
    quarter = dataclasses.replace(rules, base_width=4)
    np.testing.assert_allclose(
        preactivations(quarter)["logits"], 4 * mup["logits"], rtol=1e-5
    )


def test_attention_logits_are_those_that_the_softmax_reads():
    params, _ = functional(lambda rngs: lm(8, STANDARD, rngs))[0](jax.random.key(0))
    _, apply = functional(lambda rngs: lm(8, STANDARD, rngs))
    found, _ = apply(params, (), jnp.arange(6)[None], method="preactivations")
    x = np.asarray(found["embedding"])[0]
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    weights = jax.tree.map(np.asarray, params["blocks"]["0"]["attention"])
    query, key, value = (
        (x @ weights[k]["kernel"] + weights[k]["bias"][None]).reshape(6, 2, 4)
        for k in ("query", "key", "value")
    )
    logits = np.einsum("qhd,khd->hqk", query, key) / 2
    np.testing.assert_allclose(found["blocks/0/attention_logits"][0], logits, rtol=1e-4)
    shares = np.exp(logits) * np.tri(6)[None]
    shares = shares / shares.sum(-1, keepdims=True)
    out = np.einsum("hqk,khd->qhd", shares, value).reshape(6, 8)
    out = out @ weights["out"]["kernel"] + weights["out"]["bias"][None]
    np.testing.assert_allclose(
        found["blocks/0/attention"][0], out, rtol=1e-3, atol=1e-5
    )


def test_padding_is_not_attended_to():
    def build(rngs):
        return TransformerLM(
            9, context=4, width=8, depth=1, num_heads=2, pad_token=0, rngs=rngs
        )

    init, apply = functional(build)
    params, _ = init(jax.random.key(0))
    tokens = jnp.array([[0, 5, 0, 7]])
    moved = params["token_embedding"]["embedding"].at[0, 0].add(1.0)
    other = {**params, "token_embedding": {"embedding": moved}}
    one, two = (apply(p, (), tokens)[0][0] for p in (params, other))
    assert jnp.all(jnp.isfinite(one))
    np.testing.assert_array_equal(one[1::2], two[1::2])
    assert jnp.all((one[::2] != two[::2]).any(axis=1))


def test_optimizers_are_told_the_width():
    task = tasks.get("digits-mlp", width=32, parametrization="mup", base_width=16)
    params, _ = jax.jit(task.init)(jax.random.key(0))
    for spec, hidden, other in [
        ("tasks:mup_adam(1.0)", 0.5, 1.0),
        ("tasks:mup_sgd(1.0)", 1.0, 2.0),
    ]:
        optimizer = resolve(spec).build(task, 10)
        grads = jax.tree.map(jnp.ones_like, params)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        steps = jax.tree.map(lambda u: -float(u.ravel()[0]), updates)
        assert steps["layers"]["1"]["kernel"] == pytest.approx(hidden, rel=1e-4)
        del steps["layers"]["1"]["kernel"]
        assert jax.tree.leaves(steps) == pytest.approx([other] * 5, rel=1e-4)


def test_without_multipliers_mup_optimizers_are_the_plain_ones():
    grads = {"w": jnp.array([1.0, -2.0])}
    for mup, plain in [
        (tasks.mup_adam(0.1, None, b1=0.8), optax.adam(0.1, b1=0.8)),
        (tasks.mup_sgd(0.1, None, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    ]:
        states = mup.init(grads), plain.init(grads)
        for _ in range(2):
            one, first = mup.update(grads, states[0], grads)
            two, second = plain.update(grads, states[1], grads)
            states = first, second
        np.testing.assert_array_equal(one["w"], two["w"])


def test_scaling_keeps_dtypes_and_knows_its_model():
    scaling = tasks.scale_by_width({"w": 3.0})
    updates, _ = scaling.update({"w": jnp.ones(2, jnp.bfloat16)}, optax.EmptyState())
    assert updates["w"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="width_multipliers have another structure"):
        scaling.init({"v": jnp.ones(2)})
