"""Things to optimize, and the measuring of optimizers on them."""

from tasks.base import Task, TaskFamily
from tasks.registry import describe, get, list_tasks, register

__all__ = [
    "Task",
    "TaskFamily",
    "describe",
    "get",
    "list_tasks",
    "register",
]
