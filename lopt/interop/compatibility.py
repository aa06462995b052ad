"""Importing `learned_optimization` on current JAX, without TensorFlow.

Its modules are loaded with an `import` of their own. What that gives them in place of
`jax` has the names of 2022 as well, at import and ever after; what it gives them in
place of a TensorFlow that is not installed can be imported and named, but not called.
Neither `jax` nor `sys.modules` is changed, so nobody else meets either.
"""

import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax

PACKAGE = "learned_optimization"
REPLACEABLE = ("tensorflow", "tensorflow_datasets")


@contextlib.contextmanager
def compatibility() -> Iterator[None]:
    """Lets `import learned_optimization` work within a `with` block.

    Modules that were imported within go on working after it, and import others by
    themselves. It may be nested and repeated, and does nothing to a module that has
    been imported before, nor to any other package.

    Raises:
      ImportError: `learned_optimization`, or what it needs, is not installed; the
        error says how to install it.

    Examples:
      >>> with compatibility():  # doctest: +SKIP
      ...     from learned_optimization.tasks import quadratics
    """
    if _FINDER in sys.meta_path:
        yield
        return
    for module in (PACKAGE, "haiku", "gin"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"{module} is not installed. In a checkout of this package: "
                "python -m pip install '.[interop]' && "
                "python -m pip install --no-deps learned_optimization==0.0.1",
                name=module,
            )
    sys.meta_path.insert(0, _FINDER)
    try:
        yield
    finally:
        sys.meta_path.remove(_FINDER)


def load(name: str) -> Any:
    """The module `learned_optimization.{name}`."""
    with compatibility():
        return importlib.import_module(f"{PACKAGE}.{name}")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what others find, and has it loaded by `_Loader`."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != PACKAGE:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


_FINDER = _Finder()


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module with its own `import`, and without warnings of its age."""

    def exec_module(self, module):
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        with warnings.catch_warnings():
            for category in (DeprecationWarning, SyntaxWarning):
                warnings.simplefilter("ignore", category)
            super().exec_module(module)


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    """`__import__` for modules of `learned_optimization`."""
    try:
        with compatibility():
            module = builtins.__import__(name, globals, locals, fromlist, level)
    except ModuleNotFoundError as error:
        if error.name not in REPLACEABLE:
            raise
        # As `__import__` does: the root, unless something is taken from the rest.
        return _Absent(name if fromlist else name.partition(".")[0])
    return _JAX if module is jax else module


class _Absent(types.ModuleType):
    """In place of a module that is missing, and of everything in it."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __call__(self, *args, **kwargs):
        if self.__name__.endswith(".enable_v2_behavior"):  # Called while importing.
            return
        raise ModuleNotFoundError(
            f"learned_optimization called {self.__name__}, which needs TensorFlow: "
            f"install {' and '.join(REPLACEABLE)}, or bring data of your own."
        )


class _Jax(types.ModuleType):
    """JAX as it is, and what 0.0.1 knew it by."""

    def __getattr__(self, name):
        return getattr(jax, name)


_JAX = _Jax("jax")
_JAX.__dict__.update(
    tree_map=jax.tree.map,
    tree_multimap=jax.tree.map,
    tree_leaves=jax.tree.leaves,
    tree_structure=jax.tree.structure,
    tree_flatten=jax.tree.flatten,
    tree_unflatten=jax.tree.unflatten,
    ShapedArray=jax.ShapeDtypeStruct,
    lib=types.SimpleNamespace(xla_client=types.SimpleNamespace(Device=jax.Device)),
)
