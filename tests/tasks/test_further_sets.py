"""Evaluation on further sets: GPT-2's perplexity on texts that it is not trained on."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from test_data_tokens import write_bin
from test_results import BASELINE, runs

import tasks
from tasks import measures, streaming
from tasks.claims import Claim, outcome
from tasks.gpt2 import TOKENS
from tasks.results import Results
from tasks.training import evaluations

SMALL = {
    **{"width": 8, "depth": 1, "num_heads": 2, "context": 8},
    **{"batch_size": 2, "microbatches": 1, "max_valid_windows": 5},
}
TEXTS = "wikitext", "lambada"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MADA_DATA_DIR", raising=False)
    rng = np.random.default_rng(0)
    write_bin(tmp_path / "openwebtext", *rng.integers(0, TOKENS, (2, 100)))
    for name in TEXTS:
        (tmp_path / name).mkdir()
        rng.integers(0, 99, 60).astype("<u2").tofile(tmp_path / name / "val.bin")
    return tmp_path


@pytest.mark.parametrize("streamed", [False, True])
def test_texts_are_evaluated_beside_the_validation_split(folder, streamed, monkeypatch):
    monkeypatch.setattr(streaming, "_MOST_BYTES", 0 if streamed else 2**28)
    task = tasks.get("openwebtext-gpt2", data_dir=folder, texts=TEXTS, **SMALL)
    assert task.name.endswith("texts=('wikitext', 'lambada'), width=8)")
    assert task.metadata["sizes"]["lambada"] == 60
    assert "lambada" in task.metadata["sha256"]
    # As many windows of a text as of the split, and none of the training data.
    assert task.data["wikitext"]["tokens"].shape == (5, 9)
    found = tasks.evaluate(
        task, "optax:adamw(1e-3)", seeds=[3], steps=2, progress=False
    )
    (record,) = found.records
    names = [f"{m}/{t}" for t in TEXTS for m in ("loss", "perplexity")]
    assert set(record.valid) == {"loss", "perplexity", *names}
    assert (task.stream is not None) == streamed
    # At the start, by hand.
    params, state = task.init(jax.random.split(jax.random.key(3))[0])
    alone = task.evaluate(params, state, task.data["lambada"])["perplexity"]
    assert record.valid["perplexity/lambada"][0] == pytest.approx(float(alone), 1e-4)
    assert record.valid["perplexity/wikitext"][0] != pytest.approx(float(alone), 1e-4)


def test_without_texts_nothing_changes(folder):
    task = tasks.get("openwebtext-gpt2", data_dir=folder, **SMALL)
    params, state = task.init(jax.random.key(0))
    assert set(task.data) == {"train", "valid"}
    assert set(evaluations(task, params, state, task.data)) == {"loss", "perplexity"}


def test_the_texts_of_the_suite_are_those_of_the_paper():
    entry = tasks.get_suite("mada").entries[0]
    assert entry.overrides == {"texts": TEXTS}


def test_a_text_that_is_missing_is_said(folder):
    (folder / "lambada" / "val.bin").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lambada: no files found.*Expected: val.bin"
    ):
        tasks.get("openwebtext-gpt2", data_dir=folder, texts=TEXTS, **SMALL)


def test_a_text_of_another_tokenizer_is_refused(folder):
    (folder / "wikitext" / "meta.json").write_text(
        json.dumps({"dtype": "uint16", "vocab_size": 65})
    )
    with pytest.raises(ValueError, match="the files are of another tokenizer"):
        tasks.get("openwebtext-gpt2", data_dir=folder, texts=TEXTS, **SMALL)


@pytest.mark.parametrize(
    ("name", "texts", "said"),
    [
        ("openwebtext-gpt2", "lambada", "texts are 'lambada'; allowed are several"),
        ("openwebtext-gpt2", ("valid",), "but none of a split"),
        ("shakespeare-gpt2", TEXTS, "tiny_shakespeare are characters; leave texts out"),
    ],
)
def test_texts_that_are_not_allowed(name, texts, said):
    with pytest.raises(ValueError, match=said):
        tasks.get(name, texts=texts)


def test_a_further_set_must_be_in_the_data():
    task = tasks.get("digits-mlp", width=8)
    with pytest.raises(ValueError, match="unknown set in also_evaluated 'tset'"):
        tasks.evaluate(
            dataclasses.replace(task, also_evaluated=("tset",)), "optax:sgd(0.1)"
        )


def with_perplexities(records):
    more = {"loss/wikitext": 1, "perplexity/wikitext": 7, "accuracy/own": 2}
    return [
        dataclasses.replace(
            r, valid=r.valid | {k: v * r.valid["loss"] for k, v in more.items()}
        )
        for r in records
    ]


def test_the_page_and_the_table_show_perplexities(tmp_path):
    records = with_perplexities(runs("adamw", BASELINE))
    results = Results(records)
    assert measures.by_seed(records, "final wikitext perplexity") == {
        0: 14,
        1: 21,
        2: 28,
    }
    head = next(line for line in results.table().splitlines() if "best valid" in line)
    assert "wikitext perplexity" in head and "own accuracy" in head
    assert "wikitext loss" not in head
    assert "21.00 [14.00, 28.00]" in results.table()
    page = results.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "final<br>wikitext perplexity" in page
    assert "final<br>validation accuracy" in page
    assert "wikitext loss" not in page


def test_a_claim_may_be_about_a_perplexity():
    better = with_perplexities(runs("mada", np.asarray(BASELINE) - 1))
    sides = Results(with_perplexities(runs("adamw", BASELINE))), Results(better)
    adamw, mada = (r.summaries()["task"] for r in sides)
    claim = Claim.parse("mada < adamw in final wikitext perplexity on task")
    found = outcome(claim, mada, adamw)
    assert found.num_pairs == 3 and found.p == found.smallest_p
