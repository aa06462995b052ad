"""What was saved comes back bit for bit, or its damage is named."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lopt import parallel
from lopt.checkpoint import Checkpoints

CONFIG = {"estimator": {"type": "PES", "std": 0.01}, "steps": 100}


class State(NamedTuple):
    theta: dict
    key: jax.Array
    particles: jax.Array
    empty: jax.Array
    nothing: tuple = ()


def state(seed=0, devices=2):
    mesh = parallel.particle_mesh(jax.devices()[:devices])
    sharded = NamedSharding(mesh, P(parallel.AXIS))
    keys = jax.random.split(jax.random.key(seed), 8)
    return State(
        parallel.replicate({"w": jax.random.normal(keys[0], (3, 2))}, mesh),
        parallel.replicate(keys[1], mesh),
        jax.jit(jnp.copy, out_shardings=sharded)(keys),
        jax.jit(lambda: jnp.zeros((8, 0)), out_shardings=sharded)(),
    )


def bits(tree):
    def of_leaf(x):
        if not x.size:
            return x.shape
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x).tobytes()

    return jax.tree.map(of_leaf, tree)


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 5 and 10, whose states differ."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG)
    checkpoints.save(5, state(5))
    checkpoints.save(10, state(10))
    return checkpoints


def biggest_file(saved, step):
    files = [p for p in saved._path(step).rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_comes_back_bit_for_bit_on_any_number_of_devices(saved, devices):
    like = state(0, devices)
    step, restored = Checkpoints(saved.directory, CONFIG).restore(like)
    assert step == 10
    assert jax.tree.structure(restored) == jax.tree.structure(like)
    assert bits(restored) == bits(state(10))
    for leaf, wanted in zip(
        jax.tree.leaves(restored), jax.tree.leaves(like), strict=True
    ):
        shapes = [[s.data.shape for s in x.addressable_shards] for x in (leaf, wanted)]
        assert shapes[0] == shapes[1]


def test_keeps_the_last_few_and_clears_what_kills_left(saved):
    leftover = saved.directory / "00000012.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "part").write_text("x")
    for step in (15, 20):
        saved.save(step, state(step))
    assert saved.steps() == [10, 15, 20]
    names = {path.name for path in saved.directory.iterdir()}
    expected = {f"{s:08d}{end}" for s in (10, 15, 20) for end in ("", ".json")}
    assert names == expected


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "none", CONFIG).restore(state()) is None


def test_another_configuration_is_refused_by_name(saved):
    other = {"estimator": {"type": "PES", "std": 0.02}, "steps": 100}
    with pytest.raises(ValueError) as e:
        Checkpoints(saved.directory, other).restore(state())
    assert "00000010 is of another configuration: estimator.std was 0.01, is 0.02" in (
        str(e.value)
    )


def test_another_format_is_refused(saved):
    path = saved._manifest(10)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="has format 99; this version reads 1"):
        saved.restore(state())


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"has \d+ of \d+ bytes"),
        (flip, "the contents of .* have changed"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_damage_is_named_and_the_last_good_one_is_found(saved, damage, message):
    damage(biggest_file(saved, 10))
    with pytest.warns(UserWarning, match=message) as warned:
        step, restored = saved.restore(state())
    assert step == 5
    assert "00000010 is damaged" in str(warned[0].message)
    assert bits(restored) == bits(state(5))
    assert saved.steps() == [5]
    saved.save(10, state(10))  # The damaged one is in nobody's way.
    assert saved.restore(state())[0] == 10


def test_a_cut_manifest_is_damage_too(saved):
    cut(saved._manifest(10))
    with pytest.warns(UserWarning, match="00000010.json is not readable"):
        assert saved.restore(state())[0] == 5


@pytest.mark.parametrize("entry", ["format", "step", "config", "files"])
def test_a_manifest_that_lacks_an_entry_is_damage_too(saved, entry):
    path = saved._manifest(10)
    manifest = json.loads(path.read_text())
    del manifest[entry]
    path.write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match=f"00000010.json lacks {entry}"):
        assert saved.restore(state())[0] == 5


def test_a_save_that_was_killed_before_its_end_does_not_count(saved):
    saved._manifest(10).unlink()
    assert saved.restore(state())[0] == 5


def test_when_all_are_damaged_it_says_so(saved):
    for step in (5, 10):
        cut(biggest_file(saved, step))
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged"):
        saved.restore(state())


def test_files_of_others_are_left_alone(tmp_path):
    foreign = tmp_path / "2024" / "thesis.txt"
    foreign.parent.mkdir()
    foreign.write_text("x")
    (tmp_path / "5.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path, {}, keep=1)
    for step in (1, 2):
        checkpoints.save(step, {"x": jnp.ones(2)})
    assert checkpoints.steps() == [2]
    assert foreign.exists()
    assert (tmp_path / "5.json").exists()
