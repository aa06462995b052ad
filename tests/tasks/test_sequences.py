"""MiniGPT and the translator: sizes, masks, dropout, losses, second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_data_words import write_pairs, write_wiki

import tasks
from tasks.functional import count_parameters, functional
from tasks.models.encoder_decoder import Layer
from tasks.models.minigpt import MiniGPT
from tasks.models.translator import Translator, sinusoids

TINY = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 12, "batch_size": 4}


def compiled(build):
    return tuple(map(jax.jit, functional(build)))


def gpt(**changes):
    size = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 12, "dropout": 0.2}
    options = {"context": 7, **size, **changes}
    return compiled(lambda rngs: MiniGPT(11, **options, rngs=rngs))


def translator(vocab_size=11, **changes):
    size = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 12, "dropout": 0.2}
    options = {"pad_token": 0, **size, **changes}
    return compiled(lambda rngs: Translator(vocab_size, **options, rngs=rngs))


@pytest.fixture
def minigpt_task(tmp_path):
    write_wiki(tmp_path)
    options = {"length": 3, "vocab_size": 5, **TINY}
    return tasks.get("wikitext2-minigpt", data_dir=tmp_path, **options)


@pytest.fixture
def translation_task(tmp_path):
    write_pairs(tmp_path)
    return tasks.get("multi30k", data_dir=tmp_path, **TINY)


def test_the_papers_sizes():
    paper = {"width": 128, "num_heads": 4, "hidden": 512, "context": 128}
    init, _ = functional(
        lambda rngs: MiniGPT(10_000, depth=2, dropout=0.2, **paper, rngs=rngs)
    )
    assert count_parameters(init) == 2_983_184
    paper = {"width": 256, "depth": 4, "num_heads": 8, "hidden": 1024}
    for vocab_size, millions in (7000, 11.0), (10_000, 12.5):
        size = count_parameters(translator(vocab_size, **paper)[0])
        assert size == 7_372_800 + 4 * 256 + (2 * 256 + 1) * vocab_size
        assert round(size / 1e6, 1) == millions


def test_the_defaults_are_the_papers():
    minigpt = (
        "width=128, depth=2, num_heads=4, hidden=512, dropout=0.2, length=128, "
        "vocab_size=10000, max_blocks=None, meta_fraction=0.0, batch_size=64"
    )
    assert minigpt in tasks.describe("wikitext2-minigpt")
    translation = "width=256, depth=4, num_heads=8, hidden=1024, dropout=0.2"
    assert translation in tasks.describe("multi30k")
    assert "max_length=64" in tasks.describe("multi30k")


def test_initial_scales():
    params, _ = gpt(width=32, hidden=64)[0](jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(("kernel", "embedding")):
            assert jnp.std(leaf) == pytest.approx(0.02, rel=0.2), name
        else:
            assert jnp.all(leaf == (1 if name.endswith("scale") else 0)), name
    embedding = translator(500, width=64)[0](jax.random.key(0))[0]["embedding"]
    assert jnp.std(embedding["embedding"]) == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("model", [gpt, translator])
def test_a_word_depends_on_no_later_one(model):
    init, apply = model(dropout=0.0)
    params, _ = init(jax.random.key(0))
    tokens = jnp.array([[3, 1, 4, 1, 5, 9, 2]])
    before = () if model is gpt else (tokens,)
    logits = apply(params, (), *before, tokens)[0]
    assert logits.shape == (1, 7, 11) and logits.dtype == jnp.float32
    for changed in range(7):
        other = apply(params, (), *before, tokens.at[0, changed].set(10))[0]
        np.testing.assert_array_equal(other[:, :changed], logits[:, :changed])
        assert jnp.abs(other - logits)[0, changed:].max(-1).min() > 1e-6


@pytest.mark.parametrize("pad_token", [0, None])
def test_padding_is_attended_to_only_without_a_mask(pad_token):
    init, apply = translator(pad_token=pad_token)
    params, _ = init(jax.random.key(0))
    target = jnp.array([[2, 5, 6]])
    short = jnp.array([[3, 1, 4]])
    padded = jnp.array([[3, 1, 4, 0, 0]])
    got = [apply(params, (), source, target)[0] for source in (short, padded)]
    assert np.allclose(*got, atol=1e-6) == (pad_token is not None)
    longer = jnp.array([[3, 1, 7]])
    assert not np.allclose(apply(params, (), longer, target)[0], got[0], atol=1e-4)


@pytest.mark.parametrize("model", [gpt, translator])
def test_dropout_follows_its_key_and_is_off_in_evaluation(model):
    init, apply = model(dropout=0.5)
    params, model_state = init(jax.random.key(0))
    assert model_state == ()
    tokens = jnp.array([[3, 1, 4, 1, 5]])
    inputs = (tokens,) if model is gpt else (tokens, tokens)

    def logits(seed):
        key = None if seed is None else jax.random.key(seed)
        return np.asarray(apply(params, (), *inputs, key=key)[0])

    np.testing.assert_array_equal(logits(1), logits(1))
    np.testing.assert_array_equal(logits(None), logits(None))
    assert not np.allclose(logits(1), logits(2), atol=1e-4)
    assert not np.allclose(logits(1), logits(None), atol=1e-4)
    plain = model(dropout=0.0)[1]
    np.testing.assert_array_equal(
        plain(params, (), *inputs, key=jax.random.key(1))[0], logits(None)
    )


@pytest.mark.parametrize("norm_first", [True, False])
def test_where_a_layer_normalizes(norm_first):
    size = {"num_heads": 2, "hidden": 12, "dropout": 0.0, "norm_first": norm_first}
    init, apply = compiled(lambda rngs: Layer(8, **size, rngs=rngs))
    params, _ = init(jax.random.key(0))
    x = 3 + 2 * jax.random.normal(jax.random.key(1), (2, 5, 8))
    silent = {**params, "linear2": jax.tree.map(jnp.zeros_like, params["linear2"])}
    silent["attention"] = {
        **params["attention"],
        "out": jax.tree.map(jnp.zeros_like, params["attention"]["out"]),
    }
    out = apply(silent, (), x)[0]
    standardized = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    expected = x if norm_first else standardized
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert not np.allclose(apply(params, (), x)[0], expected, atol=1e-1)


def test_positions():
    found = sinusoids(5, 6)
    np.testing.assert_allclose(found[3, 1], np.sin(3 * 10_000 ** (-1 / 3)), rtol=1e-6)
    np.testing.assert_allclose(found[3, 4], np.cos(3 * 10_000 ** (-1 / 3)), rtol=1e-6)


def test_the_loss_leaves_padding_out(translation_task):
    task = translation_task
    params, _ = jax.jit(task.init)(jax.random.key(0))
    rows = jax.tree.map(lambda array: array[:3], task.data["train"])
    _, apply = translator(task.metadata["num_classes"], dropout=0.0)
    logits = apply(params, (), rows["source"], rows["target"][:, :-1])[0]
    total = count = 0
    for of_row, target in zip(jax.nn.log_softmax(logits), rows["target"], strict=True):
        length = int((target != 0).sum())
        total -= sum(float(of_row[t, target[t + 1]]) for t in range(length - 1))
        count += length - 1
    evaluate = jax.jit(task.evaluate)
    evaluated = evaluate(params, (), rows)
    np.testing.assert_allclose(evaluated["loss"], total / count, rtol=1e-5)
    np.testing.assert_allclose(
        evaluated["perplexity"], np.exp(total / count), rtol=1e-5
    )
    # Dropout changes the training loss, but not which targets it counts.
    losses = jax.jit(jax.vmap(task.loss, in_axes=(None, None, None, 0)))(
        params, (), rows, jax.random.split(jax.random.key(0), 20)
    )[0]
    assert len(set(losses.tolist())) == 20
    np.testing.assert_allclose(losses.mean(), total / count, rtol=0.1)
    more_padding = jax.tree.map(lambda tokens: jnp.pad(tokens, ((0, 0), (0, 3))), rows)
    padded = evaluate(params, (), more_padding)
    np.testing.assert_allclose(padded["loss"], evaluated["loss"], rtol=1e-5)


@pytest.mark.parametrize("name", ["minigpt_task", "translation_task"])
def test_at_the_start_all_words_are_about_as_likely(name, request):
    task = request.getfixturevalue(name)
    start = jax.jit(task.init)(jax.random.key(0))
    found = jax.jit(task.evaluate)(*start, task.data["valid"])
    assert found["perplexity"] < 3 * task.metadata["num_classes"]
    if name == "minigpt_task":
        assert found["perplexity"] == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("name", ["minigpt_task", "translation_task"])
def test_second_derivatives_of_the_loss(name, request):
    """Those that a meta-update needs: of the gradient at parameters moved along it."""
    task = request.getfixturevalue(name)
    params, _ = jax.jit(task.init)(jax.random.key(0))
    batch = task.sample(task.data["train"], jax.random.key(1))
    gradient = jax.grad(lambda p: task.loss(p, (), batch, jax.random.key(2))[0])
    direction = jax.jit(gradient)(params)

    @jax.jit
    def squared_norm_after(step):
        moved = jax.tree.map(lambda p, d: p - step * d, params, direction)
        return sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(moved)))

    reverse = jax.jit(jax.grad(squared_norm_after))(0.1)
    forward = jax.jit(jax.jacfwd(squared_norm_after))(0.1)
    difference = (squared_norm_after(0.11) - squared_norm_after(0.09)) / 0.02
    assert abs(reverse) > 1e-4
    np.testing.assert_allclose(reverse, forward, rtol=1e-3)
    np.testing.assert_allclose(reverse, difference, rtol=0.1)


@pytest.mark.parametrize("name", ["minigpt_task", "translation_task"])
def test_data_are_arguments_of_what_is_compiled(name, request):
    task = request.getfixturevalue(name)
    start = jax.eval_shape(task.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(task.evaluate)(*start, task.data["valid"])
    # Positions are a constant of the translator.
    assert sum(np.size(constant) for constant in jaxpr.consts) < 200


def test_a_part_of_the_training_data_is_held_out_for_meta_updates(tmp_path):
    write_wiki(tmp_path)
    options = {"length": 2, "vocab_size": 5, "data_dir": tmp_path, **TINY}
    whole, task = (
        tasks.get("wikitext2-minigpt", meta_fraction=f, **options) for f in (0.0, 0.25)
    )
    parts = [task.data[split]["tokens"].tolist() for split in ("train", "meta")]
    assert sorted(parts[0] + parts[1]) == sorted(whole.data["train"]["tokens"].tolist())
    assert task.name == (
        "wikitext2-minigpt(batch_size=4, depth=1, hidden=12, length=2, "
        "meta_fraction=0.25, "
        "num_heads=2, vocab_size=5, width=8)"
    )
