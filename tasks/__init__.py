"""Things to optimize, and the measuring of optimizers on them."""

from tasks.base import Task, TaskFamily
from tasks.coordinates import CoordinateCheck, coordinate_check
from tasks.evaluation import evaluate
from tasks.parametrization import Parametrization
from tasks.registry import describe, get, list_tasks, register
from tasks.results import Results
from tasks.suites import get_suite, list_suites
from tasks.width_scaling import mup_adam, mup_sgd, scale_by_width

__all__ = [
    "CoordinateCheck",
    "Parametrization",
    "Results",
    "Task",
    "TaskFamily",
    "coordinate_check",
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
