"""Records: what they hold, and that they are whole or absent."""

import dataclasses
import json
import os
import socket

import numpy as np
import pytest

from tasks import records
from tasks.records import Record


def make(task="task", optimizer="adamw", seed=0, **changes):
    steps = np.array([0, 2, 4])
    return dataclasses.replace(
        Record(
            task=task,
            optimizer=optimizer,
            seed=seed,
            config={"steps": 4, "shape": (1, 2), "rate": 0.1},
            context={"baseline": "adamw", "position": [0, 0], "target": None},
            environment={"versions": {"jax": "1"}, "hardware": "cpu"},
            train_loss=np.array([4.0, 3.0, 2.0, 1.1], np.float32),
            eval_steps=steps,
            valid={"loss": np.array([4.0, 2.5, 1 / 3], np.float32)},
            hyperparams={"b1": np.array([0.9, 0.9, 1.0], np.float32)},
            costs={"update_ms": 0.5},
            diverged_at=None,
        ),
        **changes,
    )


def assert_same(a, b):
    for field in dataclasses.fields(Record):
        x, y = (records.as_json(getattr(r, field.name)) for r in (a, b))
        assert x == y, field.name
    assert a.config_hash == b.config_hash


def test_records_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, size=2000, dtype=np.uint32)
    written = make(train_loss=bits.view(np.float32))
    records.write(tmp_path, [written])
    (read,) = records.read(tmp_path)
    finite = np.isfinite(written.train_loss)
    assert read.train_loss.dtype == np.float32
    np.testing.assert_array_equal(read.train_loss[finite], written.train_loss[finite])
    assert np.isnan(read.train_loss[~finite]).all()
    assert read.eval_steps.dtype == np.int64
    assert_same(read, written)


def test_lines_are_strict_json_one_per_seed(tmp_path):
    diverged = make(seed=1, valid={"loss": np.array([1, np.nan, np.inf], np.float32)})
    records.write(tmp_path, [diverged, make(seed=0)])
    (path,) = (tmp_path / "records").iterdir()
    lines = [
        json.loads(line, parse_constant=pytest.fail)
        for line in path.read_text().splitlines()
    ]
    assert [line["seed"] for line in lines] == [0, 1]
    assert lines[1]["valid"]["loss"] == [1.0, None, None]
    assert lines[0]["config_hash"] == make().config_hash


def test_the_hash_follows_the_configuration_alone():
    assert make().config_hash == make(seed=3, optimizer="other").config_hash
    changed = make(config={**make().config, "rate": 0.2})
    assert changed.config_hash != make().config_hash
    assert records.config_hash({"a": (1,), "b": 2}) == records.config_hash(
        {"b": 2, "a": [1]}
    )


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    records.write(tmp_path, [make(seed=0)])
    before = list((tmp_path / "records").iterdir())

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        records.write(tmp_path, [make(seed=0), make(seed=1)])
    assert list((tmp_path / "records").iterdir()) == before
    assert [r.seed for r in records.read(tmp_path)] == [0]


def test_temporary_files_of_a_killed_process_are_not_records(tmp_path):
    records.write(tmp_path, [make()])
    (path,) = (tmp_path / "records").iterdir()
    path.with_name(f".{path.name}.123.tmp").write_text(path.read_text()[:100])
    assert len(records.read(tmp_path)) == 1


def test_a_line_that_is_cut_short_is_named_and_left_out(tmp_path):
    records.write(tmp_path, [make(seed=0), make(seed=1)])
    (path,) = (tmp_path / "records").iterdir()
    path.write_text(path.read_text()[:-40])
    with pytest.warns(UserWarning, match=r"task.adamw.jsonl, line 2: not a whole"):
        assert [r.seed for r in records.read(tmp_path)] == [0]


def test_records_come_in_the_order_of_the_suite(tmp_path):
    second = {**make().context, "position": [0, 1]}
    records.write(tmp_path, [make(optimizer="a", context=second)])
    records.write(tmp_path, [make(optimizer="b", seed=s) for s in (2, 0)])
    assert [(r.optimizer, r.seed) for r in records.read(tmp_path)] == [
        ("b", 0),
        ("b", 2),
        ("a", 0),
    ]


def test_file_names_are_readable_and_unique(tmp_path):
    names = ["adamw", "adamw(b1=0.9)", "adamw(b1-0.9)", "a/../b", "ä" * 300]
    paths = [records.path_of(tmp_path, "task", name) for name in names]
    assert paths[0].name == "task.adamw.jsonl"
    assert len({p.name for p in paths}) == len(names)
    assert all(p.parent == tmp_path / "records" for p in paths)
    assert all(len(p.name) < 120 for p in paths)


def test_the_environment_names_no_machine_and_no_path():
    environment = json.dumps(records.environment())
    assert os.sep not in environment
    assert socket.gethostname() not in environment
    assert {"python", "jax", "optax", "numpy"} <= records.environment()[
        "versions"
    ].keys()


def test_first_divergence_is_the_first_loss_that_is_not_finite():
    steps, fine = np.array([0, 2, 4]), np.ones(3)
    first = records.first_divergence
    assert first(np.ones(4), steps, fine) is None
    assert first(np.array([1, 1, np.inf, np.nan]), steps, fine) == 2
    # The last update can break the parameters when no training loss sees them any more.
    assert first(np.ones(4), steps, np.array([1, 1, np.nan])) == 4
