"""Importing `learned_optimization` leaves the rest of the process as it was."""

import importlib.util
import subprocess
import sys
import types

import jax
import pytest

from lopt.interop import compatibility
from lopt.interop.compatibility import _FINDER, _import

installed = pytest.mark.skipif(
    importlib.util.find_spec("learned_optimization") is None,
    reason="learned_optimization is not installed",
)


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    code = (
        "import sys, lopt, lopt.interop\n"
        "assert not {'haiku', 'gin', 'learned_optimization'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("missing", ["learned_optimization", "haiku", "gin"])
def test_what_is_missing_is_named_with_the_way_to_install_it(missing, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else name
    )
    command = r"pip install --no-deps learned_optimization==0\.0\.1"
    with pytest.raises(ImportError, match=f"^{missing} is not.*{command}") as error:
        with compatibility():
            pass
    assert error.value.name == missing
    assert _FINDER not in sys.meta_path


@installed
def test_names_of_old_are_known_to_it_alone():
    with compatibility(), compatibility():
        from learned_optimization import summary, tree_utils
        from learned_optimization.tasks import quadratics

        assert sys.meta_path.count(_FINDER) == 1
    assert _FINDER not in sys.meta_path
    assert not hasattr(jax, "tree_multimap")
    assert not any(name.partition(".")[0] == "tensorflow" for name in sys.modules)
    assert "flax.metrics.tensorboard" not in sys.modules
    assert tree_utils.jax.tree_multimap(max, {"a": 1}, {"a": 2}) == {"a": 2}
    assert tree_utils.jax.numpy is jax.numpy
    assert quadratics.jax is summary.jax is tree_utils.jax


@installed
def test_tensorflow_is_asked_for_when_it_is_called():
    with compatibility():
        from learned_optimization.tasks.datasets import image
    with pytest.raises(ModuleNotFoundError, match="tensorflow_datasets"):
        image.mnist_datasets(batch_size=4)


def test_an_installed_tensorflow_is_used(monkeypatch):
    for name in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v2"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert _import("tensorflow.compat.v2") is sys.modules["tensorflow"]


def test_other_missing_modules_are_errors():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _import("no_such_module")
