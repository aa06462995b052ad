"""Tasks on data that are too large for a device: ImageNet, LM1B, OpenWebText."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_data_imagenet import write as write_imagenet
from test_data_tokens import write_bin

import tasks
from tasks import streaming
from tasks.data.prepare import prepare
from tasks.gpt2 import TOKENS
from tasks.training import Program

TINY = {"width": 8, "depth": 1, "num_heads": 2, "context": 8}
LM1B = {**TINY, "batch_size": 4, "tokenizer": "byte"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MADA_DATA_DIR", "MADA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(streaming, "_MOST_BYTES", 0)


@pytest.fixture
def imagenet(tmp_path):
    write_imagenet(tmp_path)
    return tmp_path


@pytest.fixture
def webtext(tmp_path):
    rng = np.random.default_rng(0)
    train, valid = (rng.integers(0, TOKENS, n) for n in (400, 100))
    write_bin(tmp_path / "openwebtext", train, valid)
    return tmp_path


@pytest.fixture
def sentences(tmp_path):
    folder = tmp_path / "lm1b"
    folder.mkdir()
    (folder / "train.txt").write_text("One sentence .\nTwo .\n" * 8, encoding="utf-8")
    (folder / "valid.txt").write_text("Three .\nNo .\n", encoding="utf-8")
    return tmp_path


def train_one_step(task):
    program = Program(task, optax.with_extra_args_support(optax.sgd(0.1)), (0,), 1)
    return program.advance(0, 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("imagenet32-mlp", {"width": 8}),
        ("imagenet32-vit", {"width": 6, "num_heads": 3}),
    ],
)
def test_imagenet_is_streamed(imagenet, everything_is_large, name, options):
    task = tasks.get(name, data_dir=imagenet, batch_size=6, **options)
    batches = task.stream(0, 3, 5)
    assert batches["image"].shape == (2, 6, 32, 32, 3)
    assert batches["image"].dtype == np.uint8
    again = task.stream(0, 4, 5)
    np.testing.assert_array_equal(batches["image"][1], again["image"][0])
    chunk = train_one_step(task)
    assert np.isfinite(chunk.train_loss).all()
    assert chunk.valid["loss"][0] == pytest.approx(np.log(1000), rel=0.5)


def test_images_that_fit_are_not_streamed(imagenet):
    task = tasks.get("imagenet32-mlp", data_dir=imagenet, width=8)
    assert task.stream is None
    assert task.metadata["batch_size"] == 4096
    assert task.metadata["sizes"]["train"] == len(task.data["train"]["label"])


def test_imagenet_is_not_shrunk():
    with pytest.raises(ValueError, match="size must be None for imagenet32"):
        tasks.get("imagenet32-mlp", size=16)


def test_token_files_are_streamed_and_evaluated_on_a_part(webtext, everything_is_large):
    options = {**TINY, "batch_size": 4, "microbatches": 2, "max_valid_windows": 5}
    task = tasks.get("openwebtext-gpt2", data_dir=webtext, **options)
    assert task.stream(0, 0, 3).shape == (3, 4, 9)
    assert task.data["valid"]["tokens"].shape == (5, 9)
    assert task.data["train"]["tokens"].ndim == 2
    assert task.metadata["sizes"] == {"train": 400, "valid": 100}
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    assert params["token_embedding"]["embedding"].shape == (50_304, 8)
    chunk = train_one_step(task)
    assert chunk.train_loss[0, 0] == pytest.approx(np.log(50_304), rel=0.02)
    assert set(chunk.valid) == {"loss", "perplexity"}
    np.testing.assert_allclose(
        chunk.valid["perplexity"], np.exp(chunk.valid["loss"]), rtol=1e-4
    )


def test_token_files_that_fit_are_not_streamed(webtext):
    options = {**TINY, "batch_size": 2, "microbatches": 1, "max_valid_windows": None}
    task = tasks.get("openwebtext-gpt2", data_dir=webtext, **options)
    assert task.stream is None
    assert task.data["train"]["tokens"].shape == (400,)
    assert task.sample(task.data["train"], jax.random.key(0)).shape == (2, 9)


def test_sentences_are_rows_and_padding_is_not_predicted(sentences):
    task = tasks.get("lm1b-transformer", data_dir=sentences, dropout=0.0, **LM1B)
    rows = np.asarray(task.data["train"]["tokens"])
    assert rows.shape == (16, 9) and (rows == 0).any()
    batch = task.sample(task.data["train"], jax.random.key(0))
    assert batch.shape == (4, 9)
    assert set(map(bytes, np.asarray(batch, rows.dtype))) <= set(map(bytes, rows))

    params, _ = task.init(jax.random.key(0))
    params = jax.tree.map(lambda p: 5 * p, params)
    valid = task.data["valid"]["tokens"].astype(jnp.int32)
    loss, _ = task.loss(params, (), valid, jax.random.key(1))
    metrics = jax.jit(task.evaluate)(params, (), task.data["valid"])
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


def test_sentences_in_token_files_are_streamed(sentences, everything_is_large):
    prepare("lm1b", sentences / "lm1b-byte", "byte", row_length=9, data_dir=sentences)
    task = tasks.get("lm1b-transformer", data_dir=sentences, **LM1B)
    assert task.stream(0, 0, 3).shape == (3, 4, 9)
    chunk = train_one_step(task)
    assert np.isfinite(chunk.train_loss).all()


def test_the_language_model_of_mulo():
    said = tasks.describe("lm1b-transformer")
    for option in ("context=64", "batch_size=128", "dropout=0.1", "depth=3"):
        assert option in said
