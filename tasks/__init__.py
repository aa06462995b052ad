"""Things to optimize, and the measuring of optimizers on them."""

from tasks.base import Task, TaskFamily
from tasks.evaluation import evaluate
from tasks.registry import describe, get, list_tasks, register
from tasks.results import Results
from tasks.suites import get_suite, list_suites

__all__ = [
    "Results",
    "Task",
    "TaskFamily",
    "describe",
    "evaluate",
    "get",
    "get_suite",
    "list_suites",
    "list_tasks",
    "register",
]
