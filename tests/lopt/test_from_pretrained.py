"""Weights of every kind become an optimizer, or the error says what is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import published_files as files
import pytest

import lopt

SHAPES = {"a": (2, 5), "b": (4,)}


def wave(shape, amplitude, phase):
    k = np.arange(np.prod(shape)).reshape(shape)
    return jnp.asarray(amplitude * np.sin(phase + 0.7 * k), jnp.float32)


def trained(tx, steps, losses=None, *, move=True):
    """All updates of the test vectors: of which every leaf has its own."""
    params = {name: wave(shape, 0.3, 1) for name, shape in SHAPES.items()}
    state, all_updates = tx.init(params), []
    update = jax.jit(tx.update)
    for t in range(steps):
        grads = {name: wave(shape, 0.05, 2 + 0.3 * t) for name, shape in SHAPES.items()}
        value = {} if losses is None else {"value": jnp.float32(losses[t])}
        updates, state = update(grads, state, params, **value)
        all_updates.append(updates)
        if move:
            params = jax.tree.map(jnp.add, params, updates)
    return all_updates


def total(updates):
    return jax.tree.map(lambda *leaves: np.sum(leaves, 0), *updates)


def assert_close(found, expected, tolerance=2e-5):
    expected = np.reshape(expected, np.shape(found))
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind, bare, as others publish it."""
    folder = tmp_path_factory.mktemp("published")
    small, celo2, velo = files.small_fc(), files.celo2(), files.velo()
    files.write(folder / "small.safetensors", files.mulo_tensors(small))
    files.write(folder / "celo2.safetensors", files.celo2_tensors(celo2))
    files.write(folder / "celo2.state", files.with_tilde(celo2))
    files.write(folder / "velo" / "a.safetensors", files.velo_rnn_tensors(velo))
    files.write(folder / "velo" / "b.safetensors", files.velo_mlp_tensors(velo))
    files.write(folder / "celo.state", files.celo(8))
    files.write(folder / "celo_adam.state", files.celo_adam(8))
    return folder


def test_vectors_of_small_fc(folder):
    """ELO at rate 1e-3 is small_fc with its default step, and no offsets."""
    path = folder / "small.safetensors"
    tx = lopt.from_pretrained(path, variant="elo", learning_rate=1e-3)
    change = total(trained(tx, 3))
    a = "-0.4444321 -0.9400915 -0.8723463 -0.9299091 -1.0546640 -0.1586023 -0.1756470"
    a = np.float64(f"{a} -0.1426398 -0.1193647 -0.4230849".split())
    assert_close(1e3 * change["a"], a)
    b = [-0.7364559, -0.9229107, -0.8615236, -0.8191361]
    assert_close(1e3 * change["b"], b)


def test_vectors_of_celo2(folder):
    vectors = {
        "celo2": "-0.3761559 -0.1406935 1.3836771 1.2066846 1.2002611 1.7929238 "
        "1.3248050 0.0019242 0.1918340 0.1447304",
        "celo2-base": "0.9562816 0.8188323 1.1327741 1.1219197 1.0834632 1.0477928 "
        "0.8709724 0.9767849 0.9910902 0.9520684",
    }
    for variant, expected in vectors.items():
        path = folder / "celo2.safetensors"
        tx = lopt.from_pretrained(path, variant=variant, learning_rate=1.0)
        last = trained(tx, 3, move=False)[-1]
        assert_close(-last["a"], np.float64(expected.split()), 1e-4)
    assert_close(-last["b"], [0.9675690, 0.8908860, 1.0524597, 1.0781748])


def test_vectors_of_velo(folder):
    tx = lopt.from_pretrained(folder / "velo", num_steps=10)
    change = total(trained(tx, 6, [2.0, 1.5, 1.8, 1.2, 1.1, 1.0]))
    a = "-0.9105975 -0.6924734 -0.8115423 -0.9694816 -0.8821054 -0.8085990 -0.9073501"
    a = np.float64(f"{a} -1.0490539 -1.0610758 -0.8507586".split())
    assert_close(1e4 * change["a"], a, 3e-4)
    b = [-0.8657320, -0.6479656, -0.6940408, -0.9953170]
    assert_close(1e4 * change["b"], b, 3e-4)


def test_mulo_is_what_its_constants_make_it(folder):
    path = folder / "small.safetensors"
    widths = {"a": 2.0, "b": 1.0}
    theta = lopt.load_pretrained(path).theta
    same = lopt.small_fc("mup").transform(theta, width_multipliers=widths)
    expected = trained(same, 2)
    for tx in (
        lopt.from_pretrained(path, variant="mulo", width_multipliers=widths),
        lopt.mulo(path, width_multipliers=widths),
    ):
        for ours, theirs in zip(trained(tx, 2), expected, strict=True):
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_elo_decays_weights(folder):
    path = folder / "small.safetensors"
    options = {"variant": "elo", "learning_rate": 0.1}
    plain = trained(lopt.from_pretrained(path, **options), 1)[0]
    decayed = trained(lopt.from_pretrained(path, weight_decay=0.5, **options), 1)[0]
    difference = decayed["a"] - plain["a"]
    assert_close(difference, -0.1 * 0.5 * wave((2, 5), 0.3, 1))


def test_celo_and_celo_adam_train(folder):
    losses = np.linspace(2, 1, 3)
    for name in ("celo", "celo_adam"):
        tx = lopt.from_pretrained(folder / f"{name}.state", num_steps=10)
        change = total(trained(tx, 3, losses))
        assert all(np.isfinite(x).all() and x.any() for x in change.values())
    twice = lopt.from_pretrained(
        folder / "celo_adam.state", num_steps=10, learning_rate=2e-3
    )
    doubled = total(trained(twice, 3, losses, move=False))
    assert_close(doubled["a"], 2 * change["a"], 1e-4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("small.safetensors", {}, "does not say which .* one of 'mulo', 'elo'"),
        ("celo2.state", {}, "does not say which .* one of 'celo2', 'celo2-base'"),
        ("velo", {}, "is velo, which needs num_steps="),
        ("celo.state", {}, "is celo, which needs num_steps="),
        ("celo_adam.state", {}, "is learned_schedule, which needs num_steps="),
        ("velo", {"num_steps": 0}, "num_steps must be an integer >= 1, got 0"),
        ("velo", {"num_steps": 9, "learning_rate": 1.0}, "is velo, which has none"),
        ("celo2.state", {"variant": "celo2"}, "is celo2, which needs learning_rate="),
        (
            "small.safetensors",
            {"variant": "elo"},
            "is elo, which needs learning_rate=; usual is 1e-3",
        ),
        (
            "small.safetensors",
            {"variant": "mulo", "weight_decay": 0.1},
            "small_fc has no option 'weight_decay'; there are parametrization",
        ),
        (
            "velo",
            {"num_steps": 9, "orthogonalize": True},
            "velo has no option 'orthogonalize'",
        ),
        (
            "velo",
            {"variant": "mulo"},
            "is velo in safetensors; allowed are 'v",
        ),
    ],
)
def test_what_is_missing_or_too_much(folder, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        lopt.from_pretrained(folder / name, **arguments)


def test_other_architectures(folder):
    with pytest.raises(ValueError, match=r"weights of velo, but lopt.mulo takes"):
        lopt.mulo(folder / "velo")
    theta = lopt.load_pretrained(folder / "small.safetensors").theta
    with pytest.raises(ValueError, match="theta does not belong to VeLO"):
        lopt.velo(10, hidden_size=8, bank_size=4).transform(theta)
    lopt.save_pretrained(folder / "other.npz", {"x": np.ones(2)})
    with pytest.raises(ValueError, match="holds no learned optimizer that lopt knows"):
        lopt.from_pretrained(folder / "other.npz")
    lopt.save_pretrained(folder / "new.npz", theta, {"architecture": {"kind": "xlo"}})
    with pytest.raises(ValueError, match=r"'xlo', which this version .* knows s"):
        lopt.from_pretrained(folder / "new.npz")


def test_architectures_that_are_no_dict(folder):
    theta = lopt.load_pretrained(folder / "small.safetensors").theta
    lopt.save_pretrained(folder / "said.npz", theta, {"architecture": "small"})
    with pytest.raises(ValueError, match="is 'small', which is not a dict"):
        lopt.from_pretrained(folder / "said.npz")


def test_twins_of_this_package_need_nothing_more():
    tx = lopt.from_pretrained("lo_s", num_steps=5)
    assert trained(tx, 1)[0]["a"].any()
