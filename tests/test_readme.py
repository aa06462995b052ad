"""What the documents tell to run can be run, and CI runs the README's test command."""

import importlib.util
import pathlib
import re
import shlex
import sys

import pytest

import lopt.__main__
import tasks.__main__
import tasks.data_cli

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OURS = ("benchmarks", "lopt", "tasks")


def commands():
    """Those of ours in shell blocks, and those in the text that have arguments."""
    for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        text = (ROOT / name).read_text()
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        inline = re.findall(r"`(python\s+-m\s+[^`\s]+\s+[^`\s]+\s+[^`]+)`", prose)
        inline = [" ".join(command.split()) for command in inline]
        for line in "\n".join([*blocks, *inline]).replace("\\\n", "").splitlines():
            for command in line.split(" && "):
                python, *words = shlex.split(command, comments=True) or [""]
                if python == "python" and words[1].split(".")[0] in OURS:
                    yield words[1:]


COMMANDS = sorted({shlex.join(words) for words in commands()})


class Understood(Exception):
    """A command got past its arguments."""


def understood(*_, **__):
    raise Understood


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, monkeypatch):
    module, *arguments = shlex.split(command)
    assert importlib.util.find_spec(module) is not None
    if module == "lopt":
        assert arguments[0] in ("meta-train", "inspect")
        if arguments[0] == "meta-train":
            lopt.__main__.parse(arguments[1:])
    elif module == "tasks":
        for name in ("Evaluation", "coordinate_check"):
            monkeypatch.setattr(tasks.__main__, name, understood)
        monkeypatch.setattr(tasks.__main__.Results, "load", understood)
        monkeypatch.setattr(tasks.__main__.registry, "list_tasks", understood)
        for kind in (tasks.data_cli.Check, tasks.data_cli.Prepare):
            monkeypatch.setattr(kind, "run", understood)
        monkeypatch.setattr(sys, "argv", ["tasks", *arguments])
        with pytest.raises(Understood):
            tasks.__main__.main()


def test_there_are_commands_of_both_modules():
    found = {" ".join(shlex.split(command)[:2]) for command in COMMANDS}
    assert {"tasks evaluate", "tasks coord-check", "lopt meta-train"} <= found


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run_one_after_the_other():
    blocks = [block for block in BLOCKS if "interop" not in block]
    assert len(blocks) == 4
    exec(compile("\n".join(blocks), "README.md", "exec"), {})


def test_the_python_block_for_learned_optimization_runs():
    if importlib.util.find_spec("learned_optimization") is None:
        pytest.skip("learned_optimization is not installed")
    (block,) = [block for block in BLOCKS if "interop" in block]
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        ("test", "python -m pip install -e '.[test]' && python -m pytest"),
        (
            "interop",
            "python -m pip install '.[interop]' && "
            "python -m pip install --no-deps learned_optimization==0.0.1",
        ),
    ],
)
def test_ci_takes_its_commands_from_the_readme(mark, expected):
    command = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)\n```", README).group(1)
    assert command == expected
    assert f"command_under {mark}" in (ROOT / ".ci" / "run").read_text()


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [x for x in links if "://" not in x and not (ROOT / x).exists()]
    assert not missing
