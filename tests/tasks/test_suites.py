"""What a suite is, and that those that come with the package are well formed."""

import pytest

from tasks import registry
from tasks.optimizers import resolve_all
from tasks.suites import Entry, Suite, get_suite, list_suites

WIDE, NARROW = (
    Entry("digits-mlp", ("optax:sgd(0.1)",), overrides={"width": width})
    for width in (64, 8)
)
OTHER = Entry("python-docs-lm", ("optax:sgd(0.1)",))
SUITE = Suite("toys", "Toys.", (WIDE, OTHER, NARROW))


def test_overrides_tell_entries_of_one_task_apart():
    assert WIDE.task_name == "digits-mlp(width=64)"
    assert SUITE.only(["digits-mlp(width=8)"]).entries == (NARROW,)
    assert SUITE.only(["digits-mlp"]).entries == (WIDE, NARROW)
    assert SUITE.only(["mnist-mlp", "python-docs-lm"]).entries == (
        Entry("mnist-mlp"),
        OTHER,
    )


@pytest.mark.parametrize("name", list_suites())
def test_entries_are_distinct_and_name_what_exists(name):
    entries = get_suite(name).entries
    names = [entry.task_name for entry in entries]
    assert len(set(names)) == len(names)
    for entry in entries:
        assert entry.task in registry.list_tasks()
        assert resolve_all(entry.optimizers)
