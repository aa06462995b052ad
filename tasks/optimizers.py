"""Optimizers named by import path: `"optax:adamw(learning_rate=1e-3)"`.

A name leads to a factory, and the factory is told about the run what it asks for.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tasks.base import Task
from tasks.specs import parse_call

EXAMPLE = "optax:adamw(learning_rate=1e-3)"
_PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*", re.ASCII)
_FROM_RUN = ("width_multipliers", "width_ratio", "num_steps", "labels")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A named way to build a gradient transformation for a task.

    Attributes:
      name: a short display name, unique within an evaluation.
      factory: returns the transformation; parameters of it that are called
        `width_multipliers`, `width_ratio`, `num_steps` or `labels` are filled in from
        the run.
      args: literal positional arguments of `factory`.
      kwargs: literal keyword arguments of `factory`.
      path: `"module:attribute"`, or `None` for an object made in Python.
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path: str | None = None

    @property
    def spec(self) -> str:
        """The spec that `resolve` reads back, or the bare name without a path."""
        return f"{self.path}{self.arguments}" if self.path else self.name

    @property
    def arguments(self) -> str:
        """The given arguments in parentheses, nothing where there are none."""
        given = [repr(a) for a in self.args]
        given += [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"({', '.join(given)})" if given else ""

    def build(
        self, task: Task, num_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation for `num_steps` steps of `task`.

        Raises:
          ValueError: if the factory refuses its arguments, or if what it returns is
            not a gradient transformation.
        """
        of_run = {
            "width_multipliers": task.width_multipliers,
            "width_ratio": task.width_ratio,
            "num_steps": num_steps,
            "labels": task.labels,
        }
        asked = {k: of_run[k] for k in _asked(self.factory, self.args, self.kwargs)}
        try:
            made = self.factory(*self.args, **self.kwargs, **asked)
        except (TypeError, ValueError) as e:
            raise ValueError(f"optimizer {self.spec!r}: {e}") from e
        if not isinstance(made, optax.GradientTransformation):
            raise ValueError(
                f"optimizer {self.spec!r} gives a {type(made).__name__}, which is not "
                "an optax.GradientTransformation"
            )
        return optax.with_extra_args_support(made)

    def config(self) -> dict[str, Any]:
        """What identifies the optimizer in a record: spec, arguments, package version.

        Arguments include the factory's defaults, so that a later change of a default
        is seen as another configuration.
        """
        named = dict(enumerate(_parameters(self.factory)))
        arguments = {
            named.get(i, str(i)): _plain(value) for i, value in enumerate(self.args)
        }
        for name, default in _parameters(self.factory).items():
            if name not in _FROM_RUN and default is not inspect.Parameter.empty:
                arguments.setdefault(name, _plain(default))
        arguments |= {k: _plain(v) for k, v in self.kwargs.items()}
        return {"spec": self.spec, "arguments": arguments}

    def package_version(self) -> dict[str, str]:
        """`{package: version}` of the distribution that the factory comes from."""
        package = (self.path or "").split(":")[0].split(".")[0]
        try:
            return {package: importlib.metadata.version(package)} if package else {}
        except importlib.metadata.PackageNotFoundError:
            return {}


OptimizerLike = Optimizer | str | optax.GradientTransformation | tuple[str, Any]


def resolve(optimizer: OptimizerLike) -> Optimizer:
    """Turns what a user gives into an `Optimizer`.

    Args:
      optimizer: a spec (`"package.module:attribute"`, optionally called with literal
        arguments), a gradient transformation, or a pair of a display name and a spec,
        a transformation or a factory.

    Raises:
      ValueError: if a spec cannot be parsed or imported, or does not fit its factory.

    Example:
      >>> adamw = resolve("optax:adamw(1e-3, weight_decay=0.1)")
      >>> adamw.name, adamw.spec
      ('adamw', 'optax:adamw(0.001, weight_decay=0.1)')
      >>> resolve("optax:adamw(lr=1e-3)")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      ValueError: optimizer 'optax:adamw(lr=1e-3)': adamw has no parameter 'lr'; it ...
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        return _parse(optimizer)
    if isinstance(optimizer, optax.GradientTransformation):
        return Optimizer(name="custom", factory=lambda: optimizer)
    if isinstance(optimizer, tuple) and len(optimizer) == 2:
        name, made = optimizer
        if isinstance(made, str | optax.GradientTransformation):
            return dataclasses.replace(resolve(made), name=name)
        if callable(made):
            return Optimizer(name=name, factory=made)
    raise ValueError(
        f"optimizer {optimizer!r} is a {type(optimizer).__name__}; allowed are a spec "
        f"such as {EXAMPLE!r}, an optax.GradientTransformation, or a pair "
        "(name, spec, transformation or factory)"
    )


def resolve_all(optimizers: Sequence[OptimizerLike]) -> tuple[Optimizer, ...]:
    """Resolves each, and spells out the arguments of those that share a name.

    Raises:
      ValueError: as `resolve`, and if two are the same.

    Example:
      >>> [o.name for o in resolve_all(["optax:sgd(.1)", "optax:sgd(.2)"])]
      ['sgd(0.1)', 'sgd(0.2)']
    """
    resolved = [resolve(o) for o in optimizers]
    names = [o.name for o in resolved]
    unique = tuple(
        dataclasses.replace(o, name=o.name + o.arguments)
        if names.count(o.name) > 1
        else o
        for o in resolved
    )
    for i, o in enumerate(unique):
        if o.name in [other.name for other in unique[:i]]:
            raise ValueError(
                f"optimizer {o.spec!r} is given twice under the name {o.name!r}; give "
                "each a name of its own with a pair (name, optimizer)"
            )
    return unique


def check(optimizer: Optimizer, task: Task, num_steps: int) -> None:
    """Runs one abstract update, so that a misfit is found before anything compiles.

    Raises:
      ValueError: if the transformation cannot be built, initialised or updated on
        `task`, or if an update changes the shapes or dtypes of its state.
    """
    transformation = optimizer.build(task, num_steps)

    def start_and_update(key):
        params, _ = task.init(key)
        state = transformation.init(params)
        grads, loss = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
        return state, transformation.update(grads, state, params, value=loss)[1]

    try:
        before, after = jax.eval_shape(start_and_update, jax.random.key(0))
    except Exception as e:
        raise ValueError(
            f"optimizer {optimizer.spec!r} does not run on task {task.name!r}: "
            f"{type(e).__name__}: {str(e).splitlines()[0]}"
        ) from e
    if jax.tree.structure(before) != jax.tree.structure(after) or any(
        (a.shape, a.dtype) != (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ):
        raise ValueError(
            f"optimizer {optimizer.spec!r} changes the structure, shapes or dtypes of "
            "its state in an update, which a compiled loop cannot carry"
        )


def load(path: str) -> Any:
    """What an import path without arguments leads to.

    Raises:
      ValueError: it leads nowhere.

    Example:
      >>> load("optax:adamw") is optax.adamw
      True
    """
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is not 'package.module:attribute'")
    module_name, _, attributes = path.partition(":")
    return _import(path, module_name, attributes.split("."))


def _parse(spec: str) -> Optimizer:
    call = parse_call("optimizer", spec)
    module_name, _, attributes = call.target.partition(":")
    if not _PATH.fullmatch(call.target):
        raise ValueError(
            f"optimizer {spec!r} is not 'package.module:attribute' with an optional "
            f"call, such as {EXAMPLE!r}"
        )
    factory = _import(spec, module_name, attributes.split("."))
    name = attributes.split(".")[-1]
    if isinstance(factory, optax.GradientTransformation):
        if call.called:
            raise ValueError(f"optimizer {spec!r}: {call.target} takes no arguments")
        return Optimizer(name, lambda: factory, path=call.target)
    if not callable(factory):
        raise ValueError(
            f"optimizer {spec!r}: {call.target} is a {type(factory).__name__}, neither "
            "a function nor a gradient transformation"
        )
    _check_arguments(spec, factory, call.args, call.kwargs)
    return Optimizer(name, factory, call.args, call.kwargs, call.target)


def _import(spec: str, module_name: str, attributes: list[str]) -> Any:
    try:
        found = importlib.import_module(module_name)
    except Exception as e:
        raise ValueError(
            f"optimizer {spec!r}: module {module_name!r} does not import "
            f"({type(e).__name__}: {e})"
        ) from e
    for attribute in attributes:
        if not hasattr(found, attribute):
            close = difflib.get_close_matches(attribute, dir(found), n=5)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise ValueError(
                f"optimizer {spec!r}: {module_name!r} has no {attribute!r}{hint}"
            )
        found = getattr(found, attribute)
    return found


def _check_arguments(
    spec: str,
    factory: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    signature = _signature(factory)
    if signature is None:
        return
    name, known = getattr(factory, "__name__", "it"), _parameters(factory)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for given in kwargs:
        if given not in known and not open_ended:
            close = difflib.get_close_matches(given, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"optimizer {spec!r}: {name} has no parameter {given!r}; it takes "
                f"{', '.join(known)}{hint}"
            )
    try:
        asked = dict.fromkeys(_asked(factory, args, kwargs))
        signature.bind(*args, **kwargs, **asked)
    except TypeError as e:
        raise ValueError(
            f"optimizer {spec!r}: {e}; {name} takes {', '.join(known)}"
        ) from None


def _asked(factory, args, kwargs) -> list[str]:
    """What a factory wants to know of the run and the spec leaves open."""
    left = list(_parameters(factory))[len(args) :]
    return [k for k in _FROM_RUN if k in left and k not in kwargs]


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def _parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    """Named parameters of a factory with their defaults."""
    signature = _signature(factory)
    return {
        p.name: p.default
        for p in (signature.parameters.values() if signature else ())
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def _plain(value: Any) -> Any:
    """A JSON value; functions by name, because their repr holds an address."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return repr(value)
