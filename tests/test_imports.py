"""Imports among the rooms point one way, and big dependencies come in by one door."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ROOMS = ("mada_optax", "tasks", "lopt")
NEVER = ("torch", "tensorflow", "chex", "haiku")


def imported(source, module):
    """Full names of all that a module imports, wherever in it the import stands."""
    package = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def within(name, *modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def forbidden(name, module):
    """Whether `module` may not import `name`."""
    room = module.split(".")[0]
    others = [other for other in ROOMS if other != room]
    if within(name, *others):
        return room != "lopt" or (within(name, "tasks") and not base(name))
    if within(name, "flax.nnx"):
        return not within(module, "tasks.functional", "tasks.models")
    if within(name, "orbax"):
        return module != "lopt.checkpoint"
    if within(name, "learned_optimization"):
        return not within(module, "lopt.interop")
    return within(name, *NEVER)


def base(name):
    return within(name, "tasks.base")


def modules():
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield path, ".".join(parts)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    found = [
        f"{module} imports {name}"
        for path, module in modules()
        if within(module, room)
        for name in imported(path.read_text(), module)
        if forbidden(name, module)
    ]
    assert not found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mada_optax.mada", "import tasks"),
        ("mada_optax.mada", "def f():\n    from lopt import pes"),
        ("tasks.evaluation", "from mada_optax.mada import mada"),
        ("tasks.evaluation", "from flax import nnx"),
        ("tasks.evaluation", "import flax.nnx as nnx"),
        ("lopt.unroll", "from tasks import models"),
        ("lopt.unroll", "import tasks"),
        ("lopt.unroll", "import orbax.checkpoint.v1"),
        ("lopt.weights", "from learned_optimization.tasks import base"),
        ("lopt.estimators.pes", "from ...tasks.data import text"),
        ("tasks.data.readers", "import torch"),
    ],
)
def test_a_wrong_import_is_seen(module, source):
    assert any(forbidden(name, module) for name in imported(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mada_optax.mada", "from mada_optax import family"),
        ("tasks.models.mlp", "from flax import nnx"),
        ("tasks.functional", "from flax import nnx"),
        ("tasks.evaluation", "import taskset, optax"),
        ("lopt.unroll", "from tasks.base import Task"),
        ("lopt.unroll", "from tasks import base"),
        ("lopt.checkpoint", "from orbax.checkpoint import v1"),
        ("lopt.estimators.pes", "from .es import es"),
    ],
)
def test_a_right_import_is_not(module, source):
    assert not any(forbidden(name, module) for name in imported(source, module))
