"""GPT-2: its published sizes, its arithmetic, and what saves memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf

import tasks
from tasks.data import Dataset
from tasks.functional import count_parameters, functional
from tasks.gpt2 import CHARACTERS, MEDIUM, MODEL, gpt2_on
from tasks.models import TransformerLM

TINY = {"width": 8, "depth": 2, "num_heads": 2, "context": 6}
SMALL = {"width": 64, "depth": 3, "num_heads": 2, "context": 64, "batch_size": 16}


def model(vocab_size=11, use_bias=False, **options):
    options = {**MODEL, "norm_bias": use_bias, **TINY, **options}
    return functional(
        lambda rngs: TransformerLM(vocab_size, use_bias=use_bias, **options, rngs=rngs)
    )


def make_task(dropout=0.0, **options):
    tokens = np.random.default_rng(0).integers(0, 11, 300).astype(np.uint8)
    split = {"tokens": tokens}
    data = Dataset("own", {"train": split, "valid": split}, 11, "a test", {})
    options = {**SMALL, **options}
    return gpt2_on(data, use_bias=False, dropout=dropout, **options)


def names(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize(
    ("size", "vocab_size", "millions"),
    [
        ({"width": 768, "depth": 12, "num_heads": 12, "context": 1024}, 50304, 123.59),
        ({**MEDIUM, "context": 1024}, 50304, 353.55),
        ({k: v for k, v in CHARACTERS.items() if k != "batch_size"}, 65, 10.65),
    ],
)
def test_as_many_parameters_as_nanogpt_prints(size, vocab_size, millions):
    count = count_parameters(model(vocab_size, **size)[0])
    assert round((count - size["context"] * size["width"]) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ({"width": 768, "depth": 12, "num_heads": 12}, 124_439_808),
        (MEDIUM, 354_823_168),
    ],
)
def test_as_many_parameters_as_the_published_weights_have(size, published):
    init, _ = model(50257, use_bias=True, context=1024, **size)
    assert count_parameters(init) == published


def test_it_starts_as_nanogpt_does():
    init, _ = model(500, use_bias=True, width=64, depth=8, context=100)
    for name, leaf in names(init(jax.random.key(0))[0]).items():
        if name.endswith("bias"):
            assert not leaf.any(), name
        elif name.endswith("scale"):
            assert (leaf == 1).all(), name
        else:
            writes = name.endswith(("attention/out/kernel", "mlp_out/kernel"))
            std = 0.02 / 4 if writes else 0.02
            assert jnp.std(leaf) == pytest.approx(std, rel=0.06), name


@pytest.mark.parametrize("use_bias", [False, True])
def test_the_arithmetic_is_that_of_gpt2(use_bias):
    init, apply = model(use_bias=use_bias)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    params = jax.tree.map(
        lambda p: p + 0.3 * jax.random.normal(next(keys), p.shape),
        init(jax.random.key(0))[0],
    )
    assert any("bias" in name for name in names(params)) == use_bias
    tokens = jnp.array([[3, 1, 4, 1, 5]])

    def linear(x, p):
        return x @ p["kernel"] + p.get("bias", jnp.zeros(1))[None]

    def norm(x, p):
        x = (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1e-5)
        return x * p["scale"][None] + p.get("bias", jnp.zeros(1))[None]

    def attend(x, p):
        out = []
        q, k, v = (linear(x, p[name]) for name in ("query", "key", "value"))
        for head in (slice(0, 4), slice(4, 8)):
            logits = q[:, head] @ k[:, head].T / 2
            logits = jnp.where(jnp.tri(5, dtype=bool), logits, -jnp.inf)
            out.append(jax.nn.softmax(logits) @ v[:, head])
        return linear(jnp.concatenate(out, axis=1), p["out"])

    table = params["token_embedding"]["embedding"]
    x = table[tokens[0]] + params["position_embedding"]["embedding"][:5]
    for block in params["blocks"].values():
        x = x + attend(norm(x, block["attention_norm"]), block["attention"])
        z = linear(norm(x, block["mlp_norm"]), block["mlp_in"])
        x = x + linear(z * (1 + erf(z / 2**0.5)) / 2, block["mlp_out"])
    expected = norm(x, params["norm"]) @ table.T
    np.testing.assert_allclose(
        apply(params, (), tokens)[0][0], expected, rtol=1e-4, atol=1e-4
    )


def test_dropout_follows_its_key_and_is_off_in_evaluation():
    tokens = jnp.array([[3, 1, 4, 1, 5], [0, 0, 3, 2, 1]])

    @jax.jit
    def logits(params, rate_key):
        return model(dropout=0.5)[1](params, (), tokens, key=rate_key)[0]

    params, _ = model()[0](jax.random.key(0))
    params = jax.tree.map(lambda p: 5 * p, params)
    plain = model()[1](params, (), tokens)[0]
    np.testing.assert_array_equal(model(dropout=0.5)[1](params, (), tokens)[0], plain)
    one, again, other = (logits(params, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert jnp.abs(one - other).max() > 1e-3
    assert jnp.abs(one[0, 0] - one[1, 0]).max() > 1e-3


@pytest.mark.parametrize("pad_token", [None, 0])
def test_attention_with_dropout_is_that_without_if_nothing_is_dropped(pad_token):
    tokens = jnp.array([[3, 1, 4, 1, 5], [2, 0, 3, 0, 1]])
    params, _ = model()[0](jax.random.key(0))
    params = jax.tree.map(lambda p: 5 * p, params)
    rare = model(dropout=1e-9, pad_token=pad_token)[1]
    dropped = rare(params, (), tokens, key=jax.random.key(0))[0]
    plain = rare(params, (), tokens)[0]
    np.testing.assert_allclose(dropped, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("saving", [{"remat": True}, {"microbatches": 4}])
def test_memory_is_saved_and_the_gradient_is_the_same(saving):
    def run(**options):
        task = make_task(**options)
        params, model_state = task.init(jax.random.key(0))
        batch = task.sample(task.data["train"], jax.random.key(1))
        arguments = params, model_state, batch, jax.random.key(2)
        of_loss = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
        compiled = of_loss.lower(*arguments).compile()
        return compiled(*arguments), compiled.memory_analysis().temp_size_in_bytes

    (expected, most), (got, less) = run(), run(**saving)
    assert less < 0.7 * most
    for one, two in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_blocks_in_a_loop_drop_the_same_units():
    params, _ = model()[0](jax.random.key(0))
    tokens, key = jnp.array([[3, 1, 4, 1, 5]]), jax.random.key(1)
    one, other = (
        model(dropout=0.5, remat=remat)[1](params, (), tokens, key=key)[0]
        for remat in (False, True)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert jnp.abs(one).max() > 0


def test_devices_share_every_part_of_a_batch():
    task = make_task(width=8, depth=1, context=8, microbatches=2)
    params, model_state = task.init(jax.random.key(0))
    batch = task.sample(task.data["train"], jax.random.key(1))
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def run(*of_batch):
        placed = jax.device_put((params, batch), tuple(of_batch))
        of_loss = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
        arguments = placed[0], model_state, placed[1], jax.random.key(2)
        compiled = of_loss.lower(*arguments).compile()
        return compiled(*arguments), compiled.as_text()

    alone, _ = run(*jax.devices()[:1] * 2)
    shared, text = run(*(jax.NamedSharding(mesh, jax.P(*x)) for x in ((), ("batch",))))
    assert "all-reduce" in text and "all-gather" not in text
    for one, two in zip(*map(jax.tree.leaves, (shared, alone)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_are_weighted_by_what_they_predict():
    tokens = jnp.zeros((4, 9), jnp.int32).at[0, :].set(3).at[1, :2].set(5)
    params, model_state = make_task(context=8).init(jax.random.key(0))
    one, two = (
        jax.value_and_grad(
            make_task(context=8, pad_token=0, microbatches=n, batch_size=4).loss,
            has_aux=True,
        )(params, model_state, tokens, jax.random.key(1))
        for n in (1, 4)
    )
    assert one[0][0] > 0
    for of_all, of_parts in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        np.testing.assert_allclose(of_all, of_parts, rtol=1e-4, atol=1e-6)


def test_bfloat16_keeps_parameters_and_loss_in_float32():
    task = make_task(dtype="bfloat16", depth=1, width=16, context=8)
    params, model_state = task.init(jax.random.key(0))
    batch = task.sample(task.data["train"], jax.random.key(1))
    (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(
        params, model_state, batch, jax.random.key(2)
    )
    assert loss.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves((params, grads))} == {jnp.dtype("float32")}


def test_in_mup_the_readout_is_scaled_and_hidden_matrices_have_their_fan_in():
    task = make_task(parametrization="mup", width=16, context=8)
    multipliers = names(task.width_multipliers)
    assert multipliers["blocks/0/mlp_out/kernel"] == 64
    assert multipliers["token_embedding/embedding"] == 1
    one, two = (
        make_task(
            parametrization=f"mup(output_multiplier={m})",
            width=16,
            context=8,
            depth=1,
        )
        for m in (1.0, 2.0)
    )
    state = one.init(jax.random.key(0))
    batch = one.sample(one.data["train"], jax.random.key(1))
    logits = [task.preactivations(*state, batch)["logits"] for task in (one, two)]
    assert jnp.abs(logits[0]).max() > 0
    np.testing.assert_allclose(2 * logits[0], logits[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"microbatches": 3}, "microbatches=3 does not divide batch_size=16"),
        ({"microbatches": 0}, "microbatches must be an integer >= 1"),
        ({"num_heads": 3}, "width=64 must be a multiple of num_heads=3"),
        ({"vocab_size": 10}, "has 11 tokens, more than the vocab_size=10"),
        ({"context": 300}, "context must be less than the 300 tokens of own"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_the_configurations_of_the_paper():
    gpt2 = tasks.describe("openwebtext-gpt2")
    for said in ("width=768, depth=12, num_heads=12, context=1024", "batch_size=480"):
        assert said in gpt2
    assert "width=1024, depth=24, num_heads=16" in tasks.describe(
        "openwebtext-gpt2-medium"
    )
    characters = "width=384, depth=6, num_heads=6, context=256, dropout=0.2"
    assert characters in tasks.describe("shakespeare-gpt2")
