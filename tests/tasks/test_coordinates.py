"""The coordinate check: what it measures, and that it tells right from wrong."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import quadratic

import tasks
from tasks import registry
from tasks.base import Task
from tasks.coordinates import CoordinateCheck, _change, coordinate_check
from tasks.parametrization import MAXIMAL_UPDATE

ADAM = "tasks:mup_adam(0.03)"


def linear(width, growth=0.0):
    """Gradients of the units are one, and of the logits width ** growth."""
    inputs = jnp.array([[1.0], [2.0], [4.0], [5.0]])

    def preactivations(params, model_state, batch):
        return {
            "units": batch * params["unit"][None],
            "readout": params["readout"][None] * batch + jnp.array([[0.0, 3.0]]),
        }

    def loss(params, model_state, batch, key):
        total = params["unit"].sum() + params["readout"].sum() * width**growth
        return total, model_state

    return Task(
        name=f"linear(width={width})",
        init=lambda key: ({"unit": jnp.ones(width), "readout": jnp.zeros(2)}, ()),
        loss=loss,
        sample=lambda data, key: data,
        evaluate=lambda *_: {"loss": jnp.zeros(())},
        data={"train": inputs, "valid": inputs},
        preactivations=preactivations,
    )


def test_what_is_measured():
    check = coordinate_check(
        lambda width: linear(width, growth=1.0), optax.sgd(0.5), (8, 16, 32), (1, 3)
    )
    assert check.layers == ("units", "readout")
    spread = np.std([1, 2, 4, 5])
    np.testing.assert_allclose(check.initial, [[spread, 0]] * 3, rtol=1e-5)
    for i, width in enumerate(check.widths):
        for j, step in enumerate(check.steps):
            expected = 0.5 * step * spread * np.array([1, width])
            np.testing.assert_allclose(check.change[i, j], expected, rtol=1e-5)
    expected = [[0, np.nan], [0, 1], [0, 1]]
    np.testing.assert_allclose(check.slopes, expected, atol=1e-5)
    assert check.failures == [
        "readout at step 1 has slope 1.00",
        "readout at step 3 has slope 1.00",
    ]


def test_seeds_count_by_their_squares():
    def random(width):
        task = linear(width)
        scale = {"unit": 0.0, "readout": 1.0}

        def init(key):
            x = 1 + jax.random.randint(key, (), 0, 100).astype(jnp.float32)
            return {"unit": x * jnp.ones(width), "readout": jnp.zeros(2)}, scale

        def preactivations(params, model_state, batch):
            return {"units": batch * params["unit"][None], "readout": batch}

        return dataclasses.replace(task, init=init, preactivations=preactivations)

    def initial(seeds):
        check = coordinate_check(random, optax.sgd(0.1), (2, 3), (1,), seeds=seeds)
        return check.initial[0, 0]

    first, both = initial(1), initial(2)
    second = np.sqrt(2 * both**2 - first**2)
    drawn = [
        1 + jax.random.randint(jax.random.split(jax.random.key(s))[0], (), 0, 100)
        for s in (0, 1)
    ]
    np.testing.assert_allclose(second / first, drawn[1] / drawn[0], rtol=1e-4)


def sizes(**rows):
    """A check of layers by name: a value per width for the start and for one step."""
    layers = tuple(rows)
    array = np.array([rows[layer] for layer in layers], float)
    return CoordinateCheck(
        task="t",
        optimizer="o",
        widths=(10, 100, 1000),
        steps=(7,),
        layers=layers,
        initial=array[:, 0].T,
        change=array[:, 1].T[:, None],
        tolerance=0.2,
        logits_tolerance=0.5,
    )


FLAT, ZERO = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]


def power(exponent):
    return [float(n) ** exponent for n in (10, 100, 1000)]


@pytest.mark.parametrize(
    ("rows", "failure"),
    [
        ({"h": [FLAT, FLAT]}, None),
        ({"h": [power(-0.3), power(0.19)]}, None),
        ({"h": [power(0.21), FLAT]}, "h at start has slope 0.21"),
        ({"h": [FLAT, power(0.21)]}, "h at step 7 has slope 0.21"),
        ({"h": [FLAT, power(-0.21)]}, "h at step 7 has slope -0.21"),
        ({"h": [FLAT, ZERO]}, None),
        ({"h": [FLAT, [0.0, 1.0, 1.0]]}, "h at step 7 has slope inf"),
        ({"h": [FLAT, [1.0, 1.0, np.nan]]}, "h at step 7 has slope inf"),
        ({"h": [FLAT, [1.0, 1.0, np.inf]]}, "h at step 7 has slope inf"),
        ({"a/attention_logits": [power(-0.5), power(-0.5)]}, None),
        (
            {"a/attention_logits": [FLAT, FLAT]},
            "a/attention_logits at start has slope 0.00",
        ),
        (
            {"a/attention_logits": [power(-0.5), power(0.3)]},
            "a/attention_logits at step 7 has slope 0.30",
        ),
        ({"logits": [ZERO, power(0.45)]}, None),
        ({"logits": [ZERO, power(0.55)]}, "logits at step 7 has slope 0.55"),
        ({"logits": [ZERO, power(-0.55)]}, "logits at step 7 has slope -0.55"),
        ({"logits": [FLAT, FLAT]}, None),
        ({"logits": [power(-0.5), FLAT]}, "logits at start has slope -0.50"),
        ({"logits": [ZERO, ZERO]}, "the logits have not moved after step 7"),
    ],
)
def test_verdicts(rows, failure):
    check = sizes(**rows, **({} if "logits" in rows else {"logits": [ZERO, FLAT]}))
    assert check.failures == ([] if failure is None else [failure])
    assert check.passed == (failure is None)


def test_the_table_shows_what_fails_in_bold():
    check = sizes(h=[FLAT, power(0.5)], logits=[ZERO, power(0.25)])
    assert check.table().splitlines() == [
        "FAIL: o on t, slopes over the widths 10, 100, 1000",
        "",
        "| layer | start | step 7 |",
        "| --- | ---: | ---: |",
        "| h | 0.00 | **0.50** |",
        "| logits | - | 0.25 |",
    ]


mup_mlp = partial(tasks.get, "digits-mlp", parametrization="mup")


def check_mlp(parametrization, optimizer, depth=2):
    return coordinate_check(
        lambda width: tasks.get(
            "digits-mlp", width=width, depth=depth, parametrization=parametrization
        ),
        optimizer,
        widths=(64, 512),
        steps=(1, 2, 5),
        seeds=2,
    )


def test_flat_under_mup_with_adam():
    check = check_mlp("mup", ADAM, depth=3)
    assert check.failures == []
    assert check.layers == ("layers/0", "layers/1", "layers/2", "logits")


def test_flat_under_mup_with_sgd():
    assert check_mlp("mup", "tasks:mup_sgd(0.1, momentum=0.9)").failures == []


def test_growing_under_sp_with_adam():
    check = check_mlp("sp", "optax:adam(0.003)", depth=3)
    _, second, third, logits = check.slopes[1]
    assert second > 0.6 and third > 0.6 and logits > 0.9
    assert not check.passed


@pytest.mark.parametrize(
    ("rule", "left_out", "failure"),
    [
        ("init_exponent", 0.0, "layers/1 at start"),
        ("output_exponent", 0.0, "logits at step 1"),
        ("update_exponent", 0.0, "layers/1 at step 2"),
        ("zero_readout", False, "logits at start"),
    ],
)
def test_each_rule_that_is_left_out_is_caught(rule, left_out, failure):
    rules = dataclasses.replace(MAXIMAL_UPDATE, **{rule: left_out})
    failures = check_mlp(rules, ADAM).failures
    layer, _ = failure.split(" at ")
    assert failures[0].startswith(failure)
    assert all(f.startswith(layer) for f in failures)


@pytest.mark.parametrize(("exponent", "passed"), [(1.0, True), (0.5, False)])
def test_the_attention_scale_that_is_left_out_is_caught(exponent, passed):
    rules = dataclasses.replace(MAXIMAL_UPDATE, attention_exponent=exponent)

    def make_task(width):
        return tasks.get(
            "python-docs-lm", width=width, depth=1, context=16, parametrization=rules
        )

    check = coordinate_check(make_task, "tasks:mup_sgd(0.1)", (32, 256), (2,), seeds=2)
    assert check.passed == passed
    assert all("attention_logits" in f for f in check.failures)
    assert passed or "attention_logits at start" in check.failures[0]


def test_rounding_is_no_change():
    first = 1000 * jnp.arange(1.0, 100.0)
    rounded = jnp.nextafter(first, jnp.inf)
    assert _change(rounded, first) == 0
    np.testing.assert_allclose(
        _change(1.001 * first, first), 1e-3 * jnp.std(first), 1e-2
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (64,)}, r"widths must be at least 2 numbers in increasing order"),
        ({"widths": (64, 32)}, r"widths must be .* increasing order, got \(64, 32\)"),
        ({"widths": (0, 32)}, r"widths must be an integer >= 1, got 0"),
        ({"steps": ()}, r"steps must be at least 1 numbers"),
        ({"steps": (2, 2)}, r"steps must be .* got \(2, 2\)"),
        ({"seeds": 0}, r"seeds must be an integer >= 1"),
        ({"optimizer": "optax:adam"}, r"missing a required argument"),
        (
            {"make_task": lambda width: quadratic()},
            r"'quadratic' does not tell its pre",
        ),
        (
            {"make_task": lambda width: mup_mlp(base_width=65)},
            r"base_width=65 is larger than width=64",
        ),
        (
            {"make_task": lambda width: mup_mlp()},
            r"grow with the width; at the widths \(2, 4\) they have \[8970, 8970\]",
        ),
        (
            {"make_task": lambda width: mup_mlp(width=width, depth=width)},
            r"the same layers; digits-mlp.*width=2\) has \('layers/0', .*width=4\)",
        ),
        ({"tolerance": 0}, r"tolerance must be a finite number > 0, got 0"),
        ({"tolerance": float("nan")}, r"tolerance must be .* got nan"),
        ({"logits_tolerance": "0.5"}, r"logits_tolerance must be .* got '0.5'"),
    ],
)
def test_bad_input_is_refused(options, message):
    good = {"make_task": linear, "optimizer": "optax:sgd(0.1)", "widths": (2, 4)}
    with pytest.raises(ValueError, match=message):
        coordinate_check(**(good | options))


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs `coord-check` on `linear`; gives exit code, stdout, stderr."""
    from tasks import __main__ as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))

    def builder(*, width=4, growth=0.0, data_dir=None):
        return linear(width, growth)

    tasks.register("linear", builder)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tasks", "coord-check", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(("growth", "code"), [(0, 0), (1, 1)])
def test_the_command_draws_prints_and_judges(command, tmp_path, growth, code):
    ended, out, _ = command(
        f"linear(growth={growth})", "--optimizer", "optax:sgd(0.1)",
        "--widths", "2", "4", "8", "--steps", "1", "3", "--out", "made/plot.png",
    )  # fmt: skip
    assert ended == code
    assert f"| readout | - | {['0.00', '**1.00**'][growth]} |" in out
    assert (tmp_path / "made" / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("linear(groth=1)", "linear override 'groth', did you mean 'growth'"),
        ("linear(4)", "overrides are keyword arguments"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(command, task, message):
    code, _, err = command(task, "--optimizer", "optax:sgd(0.1)")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
