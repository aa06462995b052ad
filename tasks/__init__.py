"""Things to optimize, and the measuring of optimizers on them."""

from tasks.base import Task, TaskFamily
from tasks.evaluation import evaluate
from tasks.parametrization import Parametrization
from tasks.registry import describe, get, list_tasks, register
from tasks.results import Results
from tasks.suites import get_suite, list_suites
from tasks.width_scaling import mup_adam, mup_sgd, scale_by_width

__all__ = [
    "Parametrization",
    "Results",
    "Task",
    "TaskFamily",
    "describe",
    "evaluate",
    "get",
    "get_suite",
    "list_suites",
    "list_tasks",
    "mup_adam",
    "mup_sgd",
    "register",
    "scale_by_width",
]
