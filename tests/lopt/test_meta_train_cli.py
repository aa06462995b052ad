"""The command line: a directory with everything in it, one line for mistakes."""

import itertools
import json
import re
import signal
import sys

import jax
import numpy as np
import pytest
from meta_toys import quadratic

import lopt
from lopt import __main__ as cli
from lopt.config import ESTIMATORS, PRESETS, TaskConfig
from lopt.meta_step import MetaStep

TINY = [
    "--steps=6",
    "--task.module=cli_tasks",
    "--task.names=quadratic",
    "--task.overrides",
    "--architecture.hidden-size=2",
    "--estimator.truncation-length=3",
    "--schedule.shortest=4",
    "--schedule.longest=8",
    "--schedule.stagger=2",
    "--evaluation.every=3",
    "--evaluation.widths",
    "5",
    "--evaluation.steps=4",
    "--evaluation.num-seeds=1",
]


class Tasks:
    """A module of tasks, as far as the configuration can tell."""

    @staticmethod
    def get(name, width):
        if name != "quadratic":
            raise ValueError(f"unknown task {name!r}")
        return quadratic(f"quadratic(width={width})", width)


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Runs the command line in an empty directory; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "cli_tasks", Tasks)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lopt", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as e:
            code = e.code
        return code, *capfd.readouterr()

    return run


def test_a_run_leaves_everything_in_its_directory(run, tmp_path, monkeypatch):
    command = ["meta-train", "mulo-s", "--out", "here", *TINY, "--checkpoint-every=4"]
    call = MetaStep.__call__

    def interrupted(self, step, *carry):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return call(self, step, *carry)

    with monkeypatch.context() as patch:
        patch.setattr(MetaStep, "__call__", interrupted)
        code, _, err = run(*command)
    assert code == 130
    assert "\ninterrupted after meta-step 5, saved in" in err
    assert "resume=True" not in err
    assert "to go on: python -m lopt meta-train mulo-s --out here" in err
    assert err.strip().endswith("--resume")
    code, _, err = run(*command)
    assert code == 2
    assert err.startswith("error: here holds a run up to meta-step 5; --resume goes on")
    code, out, err = run(*command, "--resume")
    assert code == 0, err
    assert "6/6" in err
    assert "here/theta.npz" in out
    assert re.search(r"time +[\d.]+ s to compile, [\d.]+ s to meta-train", out)
    lines = (tmp_path / "here/metrics.jsonl").read_text().splitlines()
    started = [r["step"] for r in map(json.loads, lines) if "compile_seconds" in r]
    assert started == [1, 6]
    assert {p.name for p in (tmp_path / "here").iterdir()} == {
        "checkpoints",
        "config.json",
        "meta_loss.png",
        "metrics.jsonl",
        "theta.npz",
    }
    origin = json.loads((tmp_path / "here/config.json").read_text())
    assert origin["config"]["estimator"]["truncation_length"] == 3
    assert origin["config"]["task"]["widths"] == [32]
    theta, metadata = lopt.load_pretrained(tmp_path / "here/theta.npz")
    assert metadata["architecture"]["hidden_size"] == 2
    assert metadata["metrics"]["step"] == 6
    assert metadata["config"] == origin["config"]
    assert "heldout_valid_loss/quadratic(width=5)" in metadata["metrics"]
    start = lopt.small_fc(hidden_size=2).init(jax.random.key(0))
    assert jax.tree.structure(theta) == jax.tree.structure(start)
    transformation = lopt.mulo(tmp_path / "here/theta.npz")
    assert transformation.init({"w": np.ones((2, 2), np.float32)}).count == 0


def test_ctrl_c_while_compiling_is_no_traceback(run, monkeypatch):
    def interrupted(times):
        def compile_(self, carry):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            return real(self, carry)

        return compile_

    real = MetaStep.compile
    for times, message in ((1, "before the first meta-step"), (2, "")):
        monkeypatch.setattr(MetaStep, "compile", interrupted(times))
        code, _, err = run("meta-train", "--out", f"x{times}", *TINY)
        assert code == 130
        assert f"\ninterrupted {message}".rstrip() + "\nto go on: python -m" in err
        assert "Traceback" not in err


def test_a_finished_run_without_its_metrics_is_written_again(run, tmp_path):
    command = ["meta-train", "--out", "x", *TINY]
    assert run(*command)[0] == 0
    (tmp_path / "x/metrics.jsonl").unlink()
    (tmp_path / "x/theta.npz").unlink()
    code, _, err = run(*command, "--resume")
    assert code == 0, err
    assert (tmp_path / "x/theta.npz").exists()


def test_order_of_tasks_and_their_rescaling(run, tmp_path):
    options = ["--task.widths", "3", "4", "--task-order", "round_robin"]
    rescale = ["--task.rescale", "0.1", "10", "--task.rescale-per", "tensor"]
    code, _, err = run("meta-train", "--out", "x", *TINY, *options, *rescale)
    assert code == 0, err
    lines = map(json.loads, (tmp_path / "x/metrics.jsonl").read_text().splitlines())
    *records, last = lines
    assert [k for r in records for k in r if k.startswith("meta_loss/")] == [
        f"meta_loss/quadratic(width={width})-rescaled" for width in 3 * (3, 4)
    ]
    assert "heldout_valid_loss/quadratic(width=5)" in last


def test_it_gives_up_after_as_many_skips_as_one_likes(run, monkeypatch):
    given = []
    monkeypatch.setattr(cli, "meta_train", lambda *_, **kw: given.append(kw) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("meta-train", "--out", "x", *TINY, "--max-skips", "3")
    assert given[0]["max_skips"] == 3


def test_it_starts_from_given_weights(run, monkeypatch):
    given = []
    monkeypatch.setattr(cli, "meta_train", lambda *a, **_: given.append(a[1]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("meta-train", "--out", "x", *TINY, "--start", "mulo_s")
    np.testing.assert_array_equal(
        given[0]["nn"]["w0"], lopt.load_pretrained("mulo_s").theta["nn"]["w0"]
    )


def test_presets_are_the_recipe():
    for name, (_, config) in PRESETS.items():
        if name.startswith("celo2"):
            continue
        assert config.task.widths == ((32,) if name[-1] == "s" else (16, 32, 64))
        kind = "mup" if name.startswith("mulo") else "sp"
        assert config.architecture.parametrization == kind
        assert f"parametrization={kind}" in config.task.overrides
        assert config.estimator == lopt.PES(8, 0.01, 50)
        assert config.schedule == lopt.LogUniform(100, 1000, 50)


def test_celo2_is_its_recipe():
    config = PRESETS["celo2"][1]
    assert config.architecture == lopt.celo2(1e-3, adam_bias_correction=False)
    assert config.estimator == lopt.PES(8, 0.01, 50)
    assert config.schedule == lopt.LogUniform(100, 2000, stagger=2000)
    assert (config.steps, config.task_order) == (100_000, "all")
    assert config.task.rescale == (1e-3, 1e3) and len(config.task.names) == 4
    schedule = config.meta_optimizer.schedule(config.steps)
    np.testing.assert_allclose([schedule(1), schedule(99_999)], 5e-5)


def test_celo2_is_meta_trained(run, tmp_path):
    tiny = [option for option in TINY if "hidden-size" not in option]
    more = ["--steps=1", "--evaluation.every=0", "--architecture.no-orthogonalize"]
    rate = ["--architecture.learning-rate", "0.005"]
    code, _, err = run("meta-train", "celo2-mini", "--out=x", *tiny, *more, *rate)
    assert code == 0, err
    theta, metadata = lopt.load_pretrained(tmp_path / "x/theta.npz")
    assert metadata["architecture"]["orthogonalize"] is False
    origin = json.loads((tmp_path / "x/config.json").read_text())
    assert origin["config"]["architecture"]["learning_rate"] == 0.005
    transformation = lopt.celo2(orthogonalize=False).transform(theta)
    transformation.init({"w": np.ones((2, 2), np.float32)})


def test_presets_make_tasks_that_exist():
    (digits,) = PRESETS["celo2-mini"][1].task.build()
    assert digits.metadata["num_parameters"] == 65 * 32 + 33 * 10
    (task,) = PRESETS["mulo-s"][1].task.build()
    assert task.width_multipliers["layers"]["1"]["kernel"] == 32
    (twin,) = PRESETS["lo-s"][1].task.build()
    assert twin.width_multipliers is None


def test_options_of_any_estimator():
    for name, estimator in ESTIMATORS.items():
        given = ["--estimator", name, "--estimator.num-particles", "24", "--out", "x"]
        parsed = cli.parse(["lo-m", *given])
        assert parsed.config.estimator == estimator(num_particles=24)
        assert parsed.config.task == PRESETS["lo-m"][1].task
    assert cli.parse(["--out", "x"]).config == PRESETS["mulo-s"][1]
    joined = cli.parse(["--estimator=full-es", "--out=x"])
    assert joined.config.estimator == lopt.FullES()


def test_overrides_are_literals_or_words(monkeypatch):
    seen = {}

    class Module:
        @staticmethod
        def get(name, **options):
            seen.update(options)

    monkeypatch.setitem(sys.modules, "recording_tasks", Module)
    config = TaskConfig(
        ("t",), (8,), ("depth=3", "kind=sp"), "recording_tasks", "/data"
    )
    config.build()
    assert seen == {"width": 8, "depth": 3, "kind": "sp", "data_dir": "/data"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["mulo-x"],
            "unknown preset 'mulo-x'; there are mulo-s, mulo-m, lo-s, lo-m, celo2",
        ),
        (["--out", "x", "--estimator", "es"], "--estimator must be one of pes,"),
        (["--out", "x", "--task.module", "nowhere"], "task.module 'nowhere' cannot be"),
        (["--out", "x", *TINY, "--task.names", "cubic"], "unknown task 'cubic'"),
        (["--out", "x", *TINY, "--task.overrides", "a-b"], "which is not NAME=VALUE"),
        (["--out", "x", *TINY, "--task.widths"], "task.widths is empty"),
        (["--out", "x", *TINY, "--task.names"], "task.names is empty"),
        (["--out", "x", *TINY, "--start", "nowhere"], "'nowhere'"),
        (["--out", "x", *TINY, "--steps", "0"], "steps must be an integer >= 1, got 0"),
        (["--out", "x", "--process-id", "1"], "belong together"),
        (
            ["--out", "x", *TINY, "--estimator.num-particles", "9"],
            "num_particles=9 is not a multiple of the 8 devices",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(run, arguments, message):
    code, out, err = run("meta-train", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_help_names_the_presets_and_their_options(run):
    code, out, _ = run()
    assert code == 0
    assert "meta-train [mulo-s|mulo-m|lo-s|lo-m|celo2|celo2-mini] --out DIR" in out
    assert "[--estimator NAME]" in out
    code, out, _ = run("meta-train", "--help")
    assert code == 0
    assert "standard parametrization, one width" in out
    assert "standard parametrization, three widths" in out
    code, out, _ = run("meta-train", "mulo-m", "--help")
    assert code == 0
    assert "--estimator.truncation-length" in out
    assert "16 32 64" in out
    assert f"--estimator {'|'.join(ESTIMATORS)}" in out
    assert run("meta-tran")[0] == 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_option_is_explained(run, estimator):
    code, out, _ = run("meta-train", "mulo-s", "--estimator", estimator, "--help")
    assert code == 0
    lines = [line.strip("│ ") for line in out.splitlines()]
    bare = [
        option
        for option, text in itertools.pairwise(lines)
        if option.startswith("--") and (not text or text.startswith("(default"))
    ]
    assert bare == []
