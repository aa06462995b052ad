"""A name or path leads to the right files, and nowhere else."""

import json
import sys
import types

import published_files as files
import pytest

import lopt
from lopt.pretrained import catalogue, location


def celo2(folder, name="theta.state"):
    return files.write(folder / name, files.with_tilde(files.celo2()))


def small_fc(folder, **config):
    path = folder / "model.safetensors"
    files.write(path, files.mulo_tensors(files.small_fc()))
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("inside", ["", "celo2", "snapshots/0123abcd"])
def test_folders(tmp_path, inside):
    celo2(tmp_path / inside)
    (tmp_path / inside / "README.md").touch()
    (tmp_path / inside / ".theta.state.7").touch()
    assert lopt.load_pretrained(tmp_path).metadata["kind"] == "celo2"


def test_links_as_in_the_cache_of_the_hub(tmp_path):
    blob = celo2(tmp_path / "blobs", "35683c")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "theta.state").symlink_to(blob)
    assert lopt.load_pretrained(tmp_path).metadata["kind"] == "celo2"


def test_folders_without_an_answer(tmp_path):
    (tmp_path / "README.md").touch()
    with pytest.raises(ValueError, match=r"has no file that ends in \.npz, \.safet"):
        lopt.load_pretrained(tmp_path)
    celo2(tmp_path, "a.state")
    celo2(tmp_path, "b.msgpack")
    with pytest.raises(ValueError, match=r"has 2 files .* \(a.state, b.msgpack\)"):
        lopt.load_pretrained(tmp_path)


def test_two_files_that_do_not_belong_together(tmp_path):
    small_fc(tmp_path)
    files.write(tmp_path / "b.safetensors", files.velo_rnn_tensors(files.velo()))
    with pytest.raises(ValueError, match="do not belong together; give the path of on"):
        lopt.load_pretrained(tmp_path)
    files.write(tmp_path / "b.safetensors", files.velo_rnn_tensors(files.velo(8, 5)))
    mlp = files.velo_mlp_tensors(files.velo(8, 4))
    files.write(tmp_path / "model.safetensors", mlp)
    with pytest.raises(ValueError, match=r"differ in size: 'rnn_params/rnn_to_con"):
        lopt.load_pretrained(tmp_path)


def test_config_beside_the_file(tmp_path):
    sizes = {"hidden_layers": 1, "hidden_size": 32, "input_size": 39}
    assert lopt.load_pretrained(small_fc(tmp_path, **sizes)).metadata["kind"]
    folder = small_fc(tmp_path, **{**sizes, "hidden_size": 64})
    with pytest.raises(ValueError, match=r"hidden_size=32, but the config.* says 64"):
        lopt.load_pretrained(folder)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json' is damaged"):
        lopt.load_pretrained(folder)


@pytest.mark.parametrize("name", ["btherien/mulo.npz", "runs/theta.safetensors"])
def test_missing_files_are_not_looked_up(name, monkeypatch):
    monkeypatch.setattr(location, "_fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ValueError, match=f"there is no file '{name}'"):
        lopt.load_pretrained(name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub in place of huggingface_hub; what was asked for."""
    asked = []

    def snapshot_download(repo, *, allow_patterns):
        asked.append((repo, allow_patterns))
        if not (tmp_path / repo).exists():
            raise ConnectionError("no\nroute to host")
        return str(tmp_path / repo)

    module = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_names_of_the_hub(hub, tmp_path):
    small_fc(tmp_path / "DiamondXL" / "elo")
    celo2(tmp_path / "amoudgl" / "celo2-base")
    metadata = lopt.load_pretrained("DiamondXL/elo").metadata
    assert (metadata["variant"], metadata["source"]) == (
        "elo",
        "DiamondXL/elo on the Hugging Face Hub",
    )
    assert "undecided" not in metadata
    assert hub == [("DiamondXL/elo", ["model.safetensors", "config.json"])]
    metadata = lopt.load_pretrained("amoudgl/celo2-base").metadata
    assert metadata["architecture"]["orthogonalize"] is False
    assert metadata["licence"] == "MIT"


def test_velo_is_fetched_whole(hub, tmp_path):
    folder = tmp_path / "Pauljanson002"
    tensors = files.velo_rnn_tensors(files.velo())
    files.write(folder / "VeLO_RNN" / "model.safetensors", tensors)
    tensors = files.velo_mlp_tensors(files.velo())
    files.write(folder / "VeLO_MLP" / "model.safetensors", tensors)
    found = lopt.load_pretrained("Pauljanson002/VeLO_MLP").metadata
    assert found["kind"] == "velo"
    assert [repo for repo, _ in hub] == [
        "Pauljanson002/VeLO_RNN",
        "Pauljanson002/VeLO_MLP",
    ]


def test_repositories_that_are_not_in_the_catalogue(hub, tmp_path):
    celo2(tmp_path / "someone" / "else")
    metadata = lopt.load_pretrained("someone/else").metadata
    assert metadata["undecided"] == ["celo2", "celo2-base"]
    patterns = ["model.safetensors", "theta.state", "*.npz", "config.json"]
    assert hub == [("someone/else", patterns)]


def test_changed_repositories_are_warned_of(hub, tmp_path):
    files.write(tmp_path / "amoudgl" / "celo" / "theta.state", files.celo())
    with pytest.warns(UserWarning, match="amoudgl/celo has changed: its theta.state"):
        lopt.load_pretrained("amoudgl/celo")


def test_a_local_path_wins(hub, tmp_path, monkeypatch):
    celo2(tmp_path / "amoudgl" / "celo")
    monkeypatch.chdir(tmp_path)
    assert lopt.load_pretrained("amoudgl/celo").metadata["kind"] == "celo2"
    assert not hub


def test_no_network(hub):
    with pytest.raises(ValueError, match=r"needs a network .*no route to host.* path"):
        lopt.load_pretrained("btherien/mulo")


def test_no_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"not installed: pip install .* give the"):
        lopt.load_pretrained("btherien/mulo")


def test_known_hashes_decide(tmp_path, monkeypatch):
    folder = small_fc(tmp_path)
    sha256 = lopt.load_pretrained(folder).metadata["sha256"]
    known = catalogue.PUBLISHED[1]._replace(sha256=sha256)
    monkeypatch.setattr(catalogue, "PUBLISHED", (known,))
    metadata = lopt.load_pretrained(folder).metadata
    assert (metadata["variant"], metadata["licence"]) == ("elo", known.licence)
    with pytest.raises(ValueError, match="allowed are 'elo'"):
        lopt.load_pretrained(folder, variant="mulo")
