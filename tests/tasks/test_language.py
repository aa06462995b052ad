import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tasks
from tasks import language
from tasks.data import Dataset, load_text
from tasks.functional import functional
from tasks.models import TransformerLM

CONTEXT, VOCABULARY = 10, 7


def build(rngs):
    return TransformerLM(
        VOCABULARY, context=CONTEXT, width=8, depth=1, num_heads=2, rngs=rngs
    )


def make_task(length, bytes_per_token=1.0, **options):
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, length).astype(np.uint8)
    split = {"tokens": tokens, "bytes_per_token": np.float32(bytes_per_token)}
    data = Dataset("own", {"train": split, "valid": split}, VOCABULARY, "a test", {})
    return language.language_model(
        data, build, context=CONTEXT, batch_size=3, metadata={}, **options
    )


@pytest.mark.parametrize("length", [12, 31, 77, 78, 81])
@pytest.mark.parametrize("logits_at_a_time", [1, 2 * CONTEXT * VOCABULARY, 10**6])
def test_evaluate_predicts_every_token_once(length, logits_at_a_time, monkeypatch):
    monkeypatch.setattr(language, "_EVALUATION_LOGITS", logits_at_a_time)
    task = make_task(length, bytes_per_token=2.5)
    params, _ = jax.jit(task.init)(jax.random.key(0))
    params = jax.tree.map(lambda p: 10 * p, params)
    got = jax.jit(task.evaluate)(params, (), task.data["valid"])

    _, apply = functional(build)
    apply = jax.jit(apply)
    tokens = np.asarray(task.data["valid"]["tokens"], np.int32)
    losses = []
    for start in range(0, length - 1, CONTEXT):
        # Causal, so that what fills the last window does not change what counts.
        window = np.zeros(CONTEXT, np.int32)
        piece = tokens[start : min(start + CONTEXT, length - 1)]
        window[: len(piece)] = piece
        logits = np.asarray(apply(params, (), window[None])[0][0], np.float64)
        for i in range(len(piece)):
            target = tokens[start + i + 1]
            losses.append(np.log(np.exp(logits[i]).sum()) - logits[i, target])
    assert len(losses) == length - 1
    np.testing.assert_allclose(got["loss"], np.mean(losses), rtol=1e-5)
    bits = np.mean(losses) / math.log(2) / 2.5
    np.testing.assert_allclose(got["bits_per_byte"], bits, rtol=1e-5)


def test_loss_predicts_each_next_token_of_the_batch():
    task = make_task(40)
    params, _ = task.init(jax.random.key(0))
    batch = task.sample(task.data["train"], jax.random.key(1))
    assert batch.shape == (3, CONTEXT + 1)
    logits = functional(build)[1](params, (), batch[:, :-1])[0]
    probability = jnp.take_along_axis(
        jax.nn.softmax(logits), batch[:, 1:, None], axis=-1
    )
    loss, model_state = task.loss(params, (), batch, jax.random.key(0))
    np.testing.assert_allclose(loss, -jnp.log(probability).mean(), rtol=1e-5)
    assert model_state == () and loss.dtype == jnp.float32


def test_nothing_is_predicted_after_padding():
    padded, plain = make_task(78, pad_token=0), make_task(78)
    params, _ = plain.init(jax.random.key(0))
    _, apply = functional(build)

    def losses(window):
        logits, _ = apply(params, (), window[None, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits[0], window[1:])

    batch = plain.sample(plain.data["train"], jax.random.key(1)).at[1].set(0)
    kept = np.asarray(jax.vmap(losses)(batch))[np.asarray(batch[:, :-1]) != 0]
    assert 0 < kept.size < 2 * CONTEXT
    loss, _ = padded.loss(params, (), batch, jax.random.key(0))
    np.testing.assert_allclose(loss, kept.mean(), rtol=1e-5)
    loss, _ = padded.loss(params, (), jnp.zeros_like(batch), jax.random.key(0))
    assert loss == 0

    tokens = plain.data["valid"]["tokens"].astype(jnp.int32)
    starts = range(0, len(tokens) - 1, CONTEXT)
    of_windows = [losses(tokens[start : start + CONTEXT + 1]) for start in starts]
    kept = np.concatenate(of_windows)[np.asarray(tokens[:-1]) != 0]
    assert 0 < kept.size < len(tokens) - 1
    got = padded.evaluate(params, (), padded.data["valid"])
    np.testing.assert_allclose(got["loss"], kept.mean(), rtol=1e-5)


def test_the_model_of_mulo_is_an_override_away():
    given = {"use_bias": True, "use_positions": False, "pad_token": 0, "epsilon": 1e-5}
    task = tasks.get("python-docs-lm", width=8, depth=1, num_heads=2, **given)
    assert given.items() <= task.metadata.items()
    assert not given.keys() & tasks.get("python-docs-lm").metadata.keys()
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    assert "position_embedding" not in params
    assert "bias" in params["readout"]
    params, _ = task.init(jax.random.key(0))
    batch = jnp.array([[0, 5, 0, 7]])
    moved = params["token_embedding"]["embedding"].at[0].add(1.0)
    other = {**params, "token_embedding": {"embedding": moved}}
    one, two = (task.loss(p, (), batch, jax.random.key(0))[0] for p in (params, other))
    assert one == two  # The padding is neither attended to nor predicted from.
    for epsilon in (1e-5, 1.0):
        of = tasks.get("python-docs-lm", width=8, depth=1, epsilon=epsilon)
        state = of.init(jax.random.key(0))
        x = of.preactivations(*state, batch)["blocks/0/mlp_in"]
        assert (x.std() > 0.5) == (epsilon < 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_token": 256}, "pad_token must be less than the 256 tokens"),
        ({"pad_token": -1}, "pad_token must be an integer >= 0"),
        ({"epsilon": 0.0}, "epsilon must be a finite number > 0"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.get("python-docs-lm", **options)


def test_loss_at_the_start_is_about_that_of_guessing():
    task = tasks.get("python-docs-lm", width=32, depth=1)

    def loss(data, key):
        return task.loss(*task.init(key), task.sample(data, key), key)[0]

    keys = jax.random.split(jax.random.key(0), 4)
    losses = jax.jit(jax.vmap(loss, in_axes=(None, 0)))(task.data["train"], keys)
    np.testing.assert_allclose(losses, math.log(256), atol=0.15)


def test_it_learns_a_small_text_by_heart():
    task = make_task(CONTEXT + 1)
    optimizer = optax.adam(3e-2)

    @jax.jit
    def train(data, key):
        params, _ = task.init(key)

        def step(carry, key):
            params, opt_state = carry
            batch = task.sample(data, key)
            grads, _ = jax.grad(task.loss, has_aux=True)(params, (), batch, key)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        carry = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(step, carry, jax.random.split(key, 60))
        return task.evaluate(params, (), data)["loss"]

    assert train(task.data["train"], jax.random.key(0)) < 0.05


def test_context_must_fit_into_the_text():
    with pytest.raises(ValueError, match="context must be less than the 10 tokens"):
        make_task(CONTEXT)


def test_tokens_stay_small_and_are_arguments_of_what_is_compiled():
    task = make_task(200)
    data = task.data["train"]
    assert isinstance(data["tokens"], jax.Array) and data["tokens"].dtype == jnp.uint8
    start = task.init(jax.random.key(0))
    for function, arguments in [
        (task.sample, (data, jax.random.key(0))),
        (task.evaluate, (*start, data)),
    ]:
        constants = jax.make_jaxpr(function)(*arguments).consts
        assert sum(np.size(constant) for constant in constants) < 200


def test_metadata_identify_the_text():
    task = tasks.get("python-docs-lm")
    docs = load_text("python_docs")
    assert task.metadata["sha256"] == docs.sha256
    assert task.metadata["num_classes"] == 256
    assert "pydoc_data.topics of Python" in task.metadata["source"]
    assert json.loads(json.dumps(task.metadata)) == task.metadata
