import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks.batching import sample_rows, sample_windows, sum_over


@pytest.mark.parametrize("num_rows", [1, 6, 7, 8, 17])
def test_sum_over_counts_every_row_once(num_rows):
    calls = []

    def per_row(rows):
        calls.append(rows.shape)
        return {"rows": (1 + rows).astype(jnp.float32), "count": jnp.ones_like(rows)}

    sums = jax.jit(lambda: sum_over(per_row, num_rows, batch_size=7))()
    assert sums["rows"] == num_rows * (num_rows + 1) / 2
    assert sums["count"] == num_rows
    assert calls == [(min(7, num_rows),)]


def test_sum_over_ignores_what_the_filling_rows_give():
    def nan_where_a_row_repeats(rows):
        repeated = jnp.concatenate([jnp.zeros(1, bool), rows[1:] == rows[:-1]])
        return {"repeated": jnp.where(repeated, jnp.nan, 1.0)}

    assert sum_over(nan_where_a_row_repeats, 4, 3)["repeated"] == 4


def test_sample_rows_takes_the_same_rows_of_every_array_and_reaches_all():
    data = {"image": jnp.arange(10)[:, None] * 2, "label": jnp.arange(10)}
    batch = sample_rows(data, jax.random.key(0), 200)
    np.testing.assert_array_equal(batch["image"][:, 0], 2 * batch["label"])
    assert set(batch["label"].tolist()) == set(range(10))


def test_sample_windows_reaches_both_ends():
    tokens = jnp.arange(10, dtype=jnp.uint8)
    windows = sample_windows(tokens, jax.random.key(0), 200, 4)
    assert windows.dtype == jnp.int32
    np.testing.assert_array_equal(np.diff(windows, axis=1), 1)
    assert set(windows[:, 0].tolist()) == set(range(7))


def test_sampling_in_scan_and_vmap_equals_sampling_alone():
    tokens = jnp.arange(50)
    keys = jax.random.split(jax.random.key(0), 3)

    def draw(key):
        return sample_windows(tokens, key, 2, 5)

    alone = jnp.stack([draw(key) for key in keys])
    scanned = jax.lax.scan(lambda c, key: (c, draw(key)), None, keys)[1]
    np.testing.assert_array_equal(scanned, alone)
    np.testing.assert_array_equal(jax.vmap(draw)(keys), alone)
