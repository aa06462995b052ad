"""`python -m lopt inspect` says what a file is, or on one line what is wrong."""

import hashlib
import sys

import published_files as files
import pytest

import lopt
from lopt.__main__ import main
from lopt.inspect_command import inspect


def said(capsys, *arguments):
    inspect([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    return {line[:17].strip(): line[18:] for line in lines}


def test_mulo(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    files.write(path, files.mulo_tensors(files.small_fc()))
    found = said(capsys, path)
    assert found["file"] == f"{path} (safetensors, 10096 bytes)"
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["kind"], found["variant"]) == ("small_fc", "mulo")
    assert found["parameters"] == "2402"
    assert found["momentum decays"] == "0.5420274  0.9584413  0.9980236"
    assert "btherien/mulo: Apache-2.0" in found["licence"]
    assert "btherien/mulo" in found["source"]
    assert found["to use it"] == (
        f"lopt.from_pretrained({str(path)!r}, variant='mulo', width_multipliers=...)"
    )
    assert "step_multiplier=1.0" in said(capsys, path, "--variant", "elo")["assumed"]


def test_velo_in_two_files(tmp_path, capsys):
    lopt.save_pretrained(tmp_path / "velo", lopt.load_pretrained(velo(tmp_path)).theta)
    found = said(capsys, tmp_path / "velo")
    assert found["sizes"] == "hidden_size=8, bank_size=4"
    assert found["file"].count("model.safetensors: ") == 2
    assert found["to use it"].endswith("num_steps=...); update(..., value=loss)")


def velo(folder):
    return files.write(folder / "theta.state", files.with_tilde(files.velo()))


def test_weights_of_this_package(capsys):
    found = said(capsys, "lo_s")
    assert found["licence"] == "Apache-2.0, as this package"
    assert found["to use it"] == "lopt.from_pretrained('lo_s')"
    assert "assumed" not in found


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x80\4.")
    monkeypatch.setattr(sys, "argv", ["lopt", "inspect", str(path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {str(path)!r} is refused: it holds pickles")
    assert err.count("\n") == 1


def test_kinds_of_the_future(tmp_path, capsys):
    theta = lopt.load_pretrained(velo(tmp_path)).theta
    lopt.save_pretrained(tmp_path / "x.npz", theta, {"architecture": {"kind": "xlo"}})
    with pytest.raises(SystemExit) as stop:
        inspect([str(tmp_path / "x.npz")])
    assert stop.value.code == 2
    assert "'xlo', which this version of lopt" in capsys.readouterr().err
