"""The README's code runs, and CI runs the README's test command."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_one_after_the_other():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), "README.md", "exec"), {})


def test_ci_takes_its_command_from_the_readme():
    command = re.search(r"<!-- test -->\n```sh\n(.*?)\n```", README).group(1)
    assert command == "python -m pip install -e '.[test]' && python -m pytest"
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text()


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [x for x in links if "://" not in x and not (ROOT / x).exists()]
    assert not missing
