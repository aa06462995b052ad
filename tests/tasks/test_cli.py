"""The command line: one clear line for mistakes, results for the rest."""

import os
import re
import shlex
import subprocess
import sys

import jax
import pytest

from tasks import __main__ as cli
from tasks import evaluation

TINY = ["--seeds", "2", "--steps", "4", "--eval-every", "2"]
SGD = ["--task", "digits-mlp", "--optimizer", "optax:sgd(learning_rate=0.1)"]


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Runs the command line in an empty directory; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tasks", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as e:
            code = e.code
        return code, *capfd.readouterr()

    return run


def test_evaluate_writes_records_plots_and_a_page(run, tmp_path):
    code, out, err = run("evaluate", *SGD, *TINY, "--out", "here")
    assert code == 0
    assert "digits-mlp: 4 steps, 2 seeds" in out
    assert "| sgd" in out
    assert "8/8" not in out and "step/s" in err
    written = {str(p.relative_to(tmp_path / "here")) for p in tmp_path.rglob("*.*")}
    assert written >= {
        "records/digits-mlp.sgd.jsonl",
        "plots/digits-mlp.loss.png",
        "report.html",
    }
    page = (tmp_path / "here" / "report.html").read_text()
    (tmp_path / "here" / "report.html").unlink()
    code, again, _ = run("report", "here")
    assert (code, again) == (0, out)
    assert (tmp_path / "here" / "report.html").read_text() == page


def test_list_shows_suites_and_tasks(run):
    code, out, _ = run("list")
    assert code == 0
    assert "default: " in out
    assert "digits-mlp(width=64" in out


# What the papers of μLO (section 5 of its specification) and of MADA (section 10) were
# measured on; but for the fine-tuning of GPT-2 XL, whose settings are not published.
OF_THE_PAPERS = {
    "mulo": (
        *("imagenet32-mlp", "imagenet64-mlp", "cifar10-mlp"),
        *("imagenet32-vit", "lm1b-transformer"),
    ),
    "mada": (
        *("openwebtext-gpt2", "cifar10-cnn", "cifar10-resnet9"),
        *("counterexample-1010", "counterexample-classic"),
    ),
    "mada-grid": ("shakespeare-gpt2",),
}


def test_list_shows_every_task_of_the_papers(run):
    suites, _, tasks = run("list")[1].partition("tasks:\n")
    described = {line.strip().partition("(")[0] for line in tasks.splitlines()}
    for suite, expected in OF_THE_PAPERS.items():
        _, _, rest = suites.partition(f"  {suite}: ")
        shown = rest.splitlines()[1 : 1 + len(expected)]
        assert {re.split(",| in ", s)[0].strip() for s in shown} == set(expected)
        assert described >= set(expected)
    assert "openwebtext-gpt2-medium" in described


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "defualt"], "unknown suite 'defualt', did you mean 'default'?"),
        (
            ["evaluate", "--task", "digits-mlp(width=8)"],
            "suite 'default' has none tuned for task",
        ),
        (["evaluate", "--task", "digit-mlp", *SGD[2:]], "unknown task 'digit-mlp'"),
        (["evaluate", "--optimizer", "optax:adamw(lr=1)"], "no parameter 'lr'"),
        (["evaluate", "--optimizer", "optax:tree"], "optax:tree is a module"),
        (["evaluate", "--seeds", "0"], "seeds must be an integer >= 1, got 0"),
        (["evaluate", "--resume", "--overwrite"], "overwrite=True deletes them"),
        (["report", "nowhere"], "nowhere/records holds no *.jsonl records"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_missing_data_is_a_mistake_too(run, tmp_path):
    task = ["--task", "cifar10-mlp", "--data-dir", str(tmp_path)]
    code, _, err = run("evaluate", *task, *SGD[2:], *TINY)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_unknown_options_are_named(run):
    code, _, err = run("evaluate", "--sedes", "3")
    assert code == 2
    assert "--sedes" in err


def test_several_specs_may_follow_one_option_or_repeat_it(run, monkeypatch):
    monkeypatch.setattr(evaluation, "run_cell", lambda *_: pytest.fail("not resumed"))
    made = []
    monkeypatch.setattr(
        cli,
        "Evaluation",
        lambda suite, optimizers, **_: made.append(optimizers) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        run("evaluate", "--optimizer", "optax:a", "optax:b", "--optimizer", "optax:c")
    assert made == [["optax:a", "optax:b", "optax:c"]]


def test_records_of_another_run_are_not_overwritten(run):
    assert run("evaluate", *SGD, *TINY)[0] == 0
    code, _, err = run("evaluate", *SGD, *TINY)
    assert code == 0
    assert err.startswith("runs/default holds 2 of these runs, which are run again")
    code, _, err = run("evaluate", *SGD, *TINY[:2], "--steps", "6")
    assert code == 2
    assert "runs/default holds records of 'sgd' on 'digits-mlp'" in err
    assert run("evaluate", *SGD, *TINY[:2], "--steps", "6", "--overwrite")[0] == 0


def test_an_interruption_says_how_to_go_on(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "run_cell", interrupted)
        code, _, err = run("evaluate", *SGD, *TINY)
    assert code == 130
    command = err.splitlines()[-1].removeprefix("to go on: python -m tasks ")
    assert command.endswith("--resume")
    assert run(*shlex.split(command))[0] == 0


def test_as_a_process(tmp_path):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tasks",
            "evaluate",
            *SGD,
            *TINY,
            "--out",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | cache,
    )
    assert "| sgd" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000
