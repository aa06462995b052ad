"""Suites: declarative lists of tasks, steps and optimizers."""

from tasks.checks import check_known
from tasks.suites.base import Entry, Suite
from tasks.suites.default import DEFAULT
from tasks.suites.mada import MADA, MADA_GRID, MADA_GRID_MINI, MADA_MINI
from tasks.suites.meta_adamw import META_ADAMW, META_ADAMW_MINI
from tasks.suites.mulo import MULO
from tasks.suites.mulo_mini import MULO_MINI
from tasks.suites.robustness import ROBUSTNESS

__all__ = ["Entry", "Suite", "get_suite", "list_suites"]

_SUITES = {
    suite.name: suite
    for suite in (
        DEFAULT,
        ROBUSTNESS,
        MULO,
        MULO_MINI,
        MADA,
        MADA_MINI,
        MADA_GRID,
        MADA_GRID_MINI,
        META_ADAMW,
        META_ADAMW_MINI,
    )
}


def get_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
      ValueError: if there is none; the message lists those that there are.

    Example:
      >>> get_suite("default").baseline
      'adamw'
    """
    check_known("suite", name, _SUITES)
    return _SUITES[name]


def list_suites() -> list[str]:
    """The names that `get_suite` knows.

    Example:
      >>> "default" in list_suites()
      True
    """
    return list(_SUITES)
