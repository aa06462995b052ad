"""The bytes of files in published layouts."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lopt import kinds
from lopt.pretrained import container, identity, layout
from lopt.pretrained.assembly import Assembled
from lopt.pretrained.catalogue import POSSIBLE, VARIANTS
from lopt.pretrained.layout import Layout

Arrays = Mapping[str, np.ndarray]
_FITS = (
    "must end in '.npz', '.state' or '.msgpack'",
    "must end in '.npz', '.safetensors', '.state' or '.msgpack'",
    "must end in '.npz', '.state' or '.msgpack', or be a folder, with no such end",
)


def pack(
    path: pathlib.Path, arrays: Arrays, header: dict[str, Any]
) -> dict[pathlib.Path, bytes]:
    """The files of a published layout.

    Args:
      path: of the file, or of the folder of several.
      arrays: by canonical name.
      header: of `lopt.save_pretrained`.

    Raises:
      ValueError: the end of the path is no format, or not one of this optimizer.
    """
    if path.suffix in (".safetensors", ""):
        return _pytorch(path, arrays, header)
    if path.suffix in (".state", ".msgpack"):
        return {path: _google(path, arrays, header["metadata"])}
    raise ValueError(
        f"path is {str(path)!r}; it {_FITS[1]}, or for VeLO be a folder, with no end."
    )


def google_tree(arrays: Arrays) -> dict[str, Any]:
    """The tree as google's `learned_optimization` has it, in its order."""
    tree: dict[str, Any] = {}
    for name in sorted(arrays):
        *groups, last = _google_keys(name)
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = arrays[name]
    if (state := tree.get("lstm_init_state")) is not None:
        # A NamedTuple there; all else has sorted keys.
        tree["lstm_init_state"] = {name: state[name] for name in ("hidden", "cell")}
    return tree


def _google_keys(name: str) -> tuple[str, ...]:
    group, *rest = name.split("/")
    if group in ("nn", "ff_mod_stack"):
        return group, "~", *rest
    if group == "rnn_params":  # Of which a layer is called "rnn/linear".
        return group, "/".join(rest[:-1]), rest[-1]
    return group, *rest


def _recognised(path: pathlib.Path, arrays: Arrays) -> tuple[Layout, layout.Sizes]:
    try:
        found, sizes, wrong = layout.recognise(arrays, layout.GOOGLE)
    except ValueError as error:
        raise ValueError(f"theta cannot be saved as {str(path)!r}: {error}.") from error
    if wrong:
        raise ValueError(
            f"theta cannot be saved as {str(path)!r}: as {found.kind}, "
            f"{layout.first(wrong)}."
        )
    return found, sizes


def _pytorch(
    path: pathlib.Path, arrays: Arrays, header: Mapping[str, Any]
) -> dict[pathlib.Path, bytes]:
    kind = _recognised(path, arrays)[0].kind
    parts = [part for part in layout.PYTORCH if part.kind == kind]
    if len(parts) != (1 if path.suffix else 2):
        raise ValueError(f"path is {str(path)!r}; for {kind} it {_FITS[len(parts)]}.")
    inside = {name for part in parts for name in part.covers}
    outside = {k: v.tolist() for k, v in arrays.items() if k not in inside}
    text = json.dumps({**header, **({"theta": outside} if outside else {})})
    return {
        path if path.suffix else path / part.file: container.pack_safetensors(
            layout.to_published(arrays, part), text
        )
        for part in parts
    }


def _google(path: pathlib.Path, arrays: Arrays, metadata: Mapping[str, Any]) -> bytes:
    found, sizes = _recognised(path, arrays)
    stated = metadata.get("architecture")
    if stated is not None:
        _check_guessable(path, found.kind, stated, sizes)
    wrapper = {k: metadata[k] for k in ("gen_id", "step") if k in metadata}
    if len(wrapper) == 1:
        raise ValueError(f"metadata has {[*wrapper]}, but 'gen_id' goes with 'step'.")
    return container.pack_msgpack(google_tree(arrays), wrapper)


def _check_guessable(
    path: pathlib.Path, kind: str, stated: Any, sizes: layout.Sizes
) -> None:
    """Raises `ValueError` if who reads the file could not know the architecture."""
    run = {name: 1 for name in kinds.lookup(kind).run if name == "num_steps"}
    sized = identity.named(Assembled(kind, "msgpack", {}, sizes))
    meant = kinds.build(stated, **run)
    for variant in POSSIBLE[kind, "msgpack"]:
        options = {"kind": kind, **VARIANTS[variant].architecture, **sized}
        if kinds.build(options, **run) == meant:
            return
    raise ValueError(
        f"path is {str(path)!r}, of a format without a place for {meant}: save it as "
        "'.npz' or '.safetensors', or leave the architecture out of metadata."
    )
