import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from tasks.functional import count_parameters, functional
from tasks.models import TransformerForecaster

ROWS, WINDOW = 120, 8
SMALL = {
    "window": WINDOW,
    "width": 8,
    "hidden": 16,
    "num_heads": 2,
    "depth": 1,
    "batch_size": 4,
}


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return 7 + np.cumsum(rng.normal(size=(ROWS, 2)), axis=0).round(3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("data") / "ett"
    folder.mkdir()
    lines = [f"{i},{a!r},{b!r}" for i, (a, b) in enumerate(values.tolist())]
    (folder / "ETTh1.csv").write_text("\n".join(["date,HUFL,OT", *lines]))
    return folder


@pytest.fixture(scope="module")
def get(data_dir):
    def get(**options):
        return tasks.get("etth1", data_dir=data_dir, **{**SMALL, **options})

    return get


def test_the_transformer_has_the_size_of_the_paper():
    init, _ = functional(
        lambda rngs: TransformerForecaster(
            1, width=128, depth=2, num_heads=4, hidden=512, dropout=0.2, rngs=rngs
        )
    )
    assert count_parameters(init) == 396_929  # 0.40 million


@pytest.mark.parametrize(
    ("standardize_by", "known"),
    [("series", ROWS), ("train", int(0.8 * (ROWS - WINDOW)) + WINDOW)],
)
def test_a_linear_forecast_equals_numpy(get, values, standardize_by, known):
    task = get(model="linear", columns=("HUFL", "OT"), standardize_by=standardize_by)
    x = (values - values[:known].mean(0)) / values[:known].std(0)
    windows = np.stack([x[i : i + WINDOW] for i in range(ROWS - WINDOW)])
    targets = x[WINDOW:, 1]
    params, model_state = task.init(jax.random.key(0))
    kernel, bias = (np.asarray(params["readout"][k]) for k in ("kernel", "bias"))
    errors = windows.reshape(len(windows), -1) @ kernel[:, 0] + bias[0] - targets
    cut = int(0.8 * len(windows))
    assert task.metadata["sizes"] == {"train": cut, "valid": len(windows) - cut}
    for split, of_split in (("train", errors[:cut]), ("valid", errors[cut:])):
        metrics = task.evaluate(params, model_state, task.data[split])
        np.testing.assert_allclose(metrics["loss"], np.mean(of_split**2), rtol=1e-4)
        absolute = np.mean(np.abs(of_split))
        np.testing.assert_allclose(metrics["absolute_error"], absolute, rtol=1e-4)
    last = np.mean((windows[cut:, -1, 1] - targets[cut:]) ** 2)
    np.testing.assert_allclose(task.metadata["persistence_loss"], last, rtol=1e-4)


def test_a_batch_is_windows_with_what_comes_after_them(get, values):
    task = get(model="linear")
    data = task.data["train"]
    batch = task.sample(data, jax.random.key(0))
    assert batch["input"].shape == (4, WINDOW, 1) and batch["target"].shape == (4,)
    series = np.asarray(data["input"])[:, 0].tolist()
    for window, target in zip(batch["input"], batch["target"], strict=True):
        start = series.index(window[0, 0])
        assert series[start : start + WINDOW] == window[:, 0].tolist()
        assert series[start + WINDOW] == target


def test_the_last_training_windows_are_held_out(get):
    whole, rest = get(model="linear"), get(model="linear", meta_fraction=0.25)
    sizes = rest.metadata["sizes"]
    assert sizes == {"train": 67, "valid": 23, "meta": 22}
    expected = np.asarray(whole.data["train"]["target"])
    meta = np.asarray(rest.data["meta"]["target"])
    train = np.asarray(rest.data["train"]["target"])
    np.testing.assert_array_equal(meta, expected[67:])
    np.testing.assert_array_equal(train, expected[: 67 + WINDOW])


@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_training_has_noise_evaluation_none_and_derivatives_are_finite(get, model):
    task = get(model=model, dropout=0.5)
    params, model_state = jax.jit(task.init)(jax.random.key(0))
    assert model_state == ()
    batch = task.sample(task.data["train"], jax.random.key(1))

    @jax.jit
    def look(params, key):
        def squared_gradient(params):
            (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, model_state, batch, key
            )
            return sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)), loss

        return jax.grad(squared_gradient, has_aux=True)(params)

    seconds, loss = look(params, jax.random.key(2))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seconds))
    assert loss == look(params, jax.random.key(2))[1]
    assert loss != look(params, jax.random.key(3))[1]
    rows = jax.tree.map(lambda array: array[: WINDOW + 1], task.data["valid"])
    one = {"input": rows["input"][None, :WINDOW], "target": rows["target"][WINDOW:]}
    quiet, _ = get(model=model, dropout=0.0).loss(params, (), one, jax.random.key(2))
    evaluated = task.evaluate(params, model_state, rows)["loss"]
    np.testing.assert_allclose(evaluated, quiet, rtol=1e-4)


def test_the_last_position_sees_the_order_of_all_before(get):
    init, apply = functional(
        lambda rngs: TransformerForecaster(
            1, width=8, depth=1, num_heads=2, hidden=16, dropout=0.2, rngs=rngs
        )
    )
    params, _ = init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, 5, 1))
    swapped = x[:, jnp.array([1, 0, 2, 3, 4])]
    forecast = apply(params, (), x)[0]
    assert forecast.shape == (1,)
    assert abs(forecast - apply(params, (), swapped)[0]) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gru"}, "unknown model 'gru'"),
        ({"target": "ot"}, "unknown etth1 column 'ot'"),
        ({"columns": ()}, "columns"),
        ({"columns": "OT"}, "columns"),
        ({"standardize_by": "valid"}, "unknown standardize_by 'valid'"),
        ({"window": ROWS - 1}, "leave a split of the 120 rows of etth1 empty"),
        ({"meta_fraction": 0.001}, "leave a split"),
        ({"dropout": 1}, "dropout must be at least 0 and less than 1"),
        ({"num_heads": 3}, "width=8 must be a multiple of num_heads=3"),
    ],
)
def test_values_that_are_not_allowed(get, options, message):
    with pytest.raises(ValueError, match=message):
        get(**options)
