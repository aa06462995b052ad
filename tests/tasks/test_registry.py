import pytest

import tasks
from tasks import registry

BUILT_IN = {
    "cifar10-mlp",
    "cifar10-vit",
    "digits-mlp",
    "digits-vit",
    "fashion-mnist-mlp",
    "mnist-mlp",
    "python-docs-lm",
    "tiny-shakespeare-lm",
    "wikitext2-lm",
}


def test_built_in_tasks_are_listed():
    assert set(tasks.list_tasks()) >= BUILT_IN
    assert tasks.list_tasks() == sorted(tasks.list_tasks())


def test_unknown_task():
    with pytest.raises(ValueError) as error:
        tasks.get("digit-mlp")
    assert "unknown task 'digit-mlp', did you mean 'digits-mlp'?" in str(error.value)
    assert all(name in str(error.value) for name in BUILT_IN)


def test_unknown_override():
    with pytest.raises(ValueError) as error:
        tasks.get("digits-mlp", widht=3)
    assert "digits-mlp override 'widht', did you mean 'width'?" in str(error.value)
    overrides = "base_width, batch_size, data_dir, depth, dtype, grey, parametrization"
    assert f"{overrides}, size, width" in str(error.value)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("digits-mlp", {"width": 0}, "width must be an integer >= 1, got 0"),
        ("digits-mlp", {"width": "64"}, "width must be an integer >= 1, got '64'"),
        ("digits-mlp", {"depth": -1}, "depth must be an integer >= 0, got -1"),
        ("digits-mlp", {"batch_size": 1.5}, "batch_size must be an integer"),
        ("digits-mlp", {"batch_size": True}, "batch_size must be an integer"),
        ("digits-mlp", {"dtype": "float23"}, "did you mean 'float32'"),
        ("python-docs-lm", {"context": 0}, "context must be an integer >= 1"),
        ("python-docs-lm", {"context": 10**7}, "context must be less than the"),
        ("python-docs-lm", {"level": "char"}, "unknown level 'char'"),
        ("python-docs-lm", {"width": 30}, "width=30 must be a multiple of num_heads=4"),
    ],
)
def test_values_that_are_not_allowed(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        tasks.get(name, **overrides)


def test_names_tell_tasks_apart_and_keep_machine_paths_out():
    assert tasks.get("digits-mlp").name == "digits-mlp"
    assert tasks.get("digits-mlp", width=64, data_dir="/x").name == "digits-mlp"
    task = tasks.get("digits-mlp", width=8, depth=1)
    assert task.name == "digits-mlp(depth=1, width=8)"
    assert "/x" not in str(tasks.get("digits-mlp", data_dir="/x").metadata)


def test_describe():
    expected = (
        "digits-mlp(width=64, depth=2, batch_size=64, size=None, grey=False, "
        "parametrization='sp', base_width=None, dtype='float32', data_dir=None)"
    )
    assert tasks.describe("digits-mlp") == expected


def test_own_tasks_can_be_registered(monkeypatch):
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))
    task = tasks.get("digits-mlp", width=4)
    tasks.register("own", lambda *, size=3: task)
    assert "own" in tasks.list_tasks()
    assert tasks.get("own", size=4).name == "own(size=4)"
    assert tasks.get("own").data is task.data
    with pytest.raises(ValueError, match="'own' is registered already"):
        tasks.register("own", lambda: task)
