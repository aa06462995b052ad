"""Calls written as text, such as `"optax:adamw(learning_rate=1e-3)"`, parsed only."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple


class Call(NamedTuple):
    """What a text calls and with which literals; `called` tells `f` from `f()`."""

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    called: bool


def parse_call(kind: str, text: str) -> Call:
    """Splits `target(literals)`; nothing in the text is ever evaluated.

    Args:
      kind: what the text names, for error messages.
      text: a target, optionally called with literal arguments.

    Raises:
      ValueError: if the call cannot be parsed or an argument is not a literal.

    Example:
      >>> parse_call("task", "digits-mlp(width=256)")
      Call(target='digits-mlp', args=(), kwargs={'width': 256}, called=True)
    """
    target, parenthesis, rest = text.strip().partition("(")
    if not parenthesis:
        return Call(target, (), {}, called=False)
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
    except SyntaxError as e:
        raise ValueError(f"{kind} {text!r} cannot be parsed: {e.msg}") from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ValueError(f"{kind} {text!r} has something after the closing parenthesis")
    names = [f"argument {i + 1}" for i in range(len(call.args))]
    args = [_literal(kind, text, *pair) for pair in zip(names, call.args, strict=True)]
    kwargs = {
        str(k.arg): _literal(kind, text, k.arg or "**", k.value) for k in call.keywords
    }
    if len(kwargs) < len(call.keywords):
        raise ValueError(f"{kind} {text!r} repeats a keyword argument")
    return Call(target.strip(), tuple(args), kwargs, called=True)


def _literal(kind: str, text: str, name: str, node: ast.expr) -> Any:
    try:
        if name == "**":
            raise ValueError
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(
            f"{kind} {text!r}: {name} is {ast.unparse(node)!r}; allowed are literals "
            "(numbers, strings, True, False, None, tuples, lists, dicts)"
        ) from None
