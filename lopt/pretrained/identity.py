"""Which optimizer a published file is, by whom, and what has to be assumed."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from lopt.pretrained import catalogue
from lopt.pretrained.assembly import Assembled
from lopt.pretrained.catalogue import OFFSETS, POSSIBLE, VARIANTS, Published
from lopt.pretrained.layout import SIZE_NAMES


def identify(
    found: Assembled,
    published: Published | None,
    sha256: str | None,
    variant: str | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Decides among the optimizers whose files look like this one.

    Args:
      found: what is in it.
      published: the entry of the catalogue that it was fetched as.
      sha256: of the file, if it is one.
      variant: what the user says it is.

    Returns:
      Arrays of theta that are not in the file, and metadata.

    Raises:
      ValueError: it cannot be `variant`.
    """
    published = _known(published, sha256)
    possible = POSSIBLE[found.kind or "", found.format]
    if published is not None:
        possible = (published.variant,)
    if variant is not None and variant not in possible:
        raise ValueError(
            f"variant is {variant!r}, but the file is {found.kind} in {found.format}; "
            f"allowed are {', '.join(map(repr, possible))}."
        )
    chosen = variant or possible[0]
    assumed, offsets = [], {}
    metadata: dict[str, Any] = {
        "variant": chosen,
        **_origin(published, chosen, found.format),
    }
    if len(possible) > 1 and variant is None:
        titles = " or ".join(f"{VARIANTS[v].title} ({v!r})" for v in possible)
        assumed.append(f"that it is {chosen!r}: the file may be {titles}")
        metadata["undecided"] = list(possible)
    if found.kind == "small_fc" and found.format == "safetensors":
        constants = OFFSETS[chosen].items()
        offsets = {name: np.array(values, np.float32) for name, values in constants}
        assumed.append(
            "offsets of the decays: they are not in the file, so they are the "
            f"documented ones of {chosen}"
        )
    options = VARIANTS[chosen].architecture
    if options:
        listed = ", ".join(f"{key}={value!r}" for key, value in options.items())
        assumed.append(f"{listed}, as documented for {chosen}; the file has no options")
    metadata |= {
        "kind": found.kind,
        "architecture": {"kind": found.kind, **options, **named(found)},
        "assumed": assumed,
    }
    return offsets, metadata


def _known(published: Published | None, sha256: str | None) -> Published | None:
    """The entry of the catalogue, if it can be known."""
    if published is not None and published.sha256 not in (None, sha256):
        warnings.warn(
            f"{published.repo} has changed: its {published.file} has sha256 {sha256}, "
            f"not {published.sha256} as in the catalogue of this version of lopt.",
            stacklevel=4,
        )
    same = catalogue.by_hash(sha256) if sha256 else None
    return same or published


def of_ours(
    found: Assembled, saved: dict[str, Any], variant: str | None, *, bundled: bool
) -> dict[str, Any]:
    """The metadata of a file that says itself what it is.

    Raises:
      ValueError: it is not `variant`.
    """
    if variant is not None and variant != saved.get("variant"):
        raise ValueError(
            f"variant is {variant!r}, but the file has its own metadata, with variant "
            f"{saved.get('variant')!r}: leave the argument out."
        )
    known = {"licence": "Apache-2.0, as this package", "source": "this package"}
    metadata: dict[str, Any] = {
        "variant": None,
        **({} if bundled else dict.fromkeys(known, "not in the file")),
        "assumed": [],
        **saved,
        **(known if bundled else {}),
    }
    if "architecture" not in saved and found.kind is not None:
        metadata["architecture"] = {"kind": found.kind, **named(found)}
        metadata["assumed"] = ["the default options; the file has none"]
    if variant is not None:
        metadata.pop("undecided", None)
    stated, kind = metadata.get("architecture"), found.kind
    if isinstance(stated, dict):
        kind = stated.setdefault("kind", kind)
    return {**metadata, "kind": kind}


def named(found: Assembled) -> dict[str, int]:
    """Sizes by the names of options."""
    return {
        name: found.sizes[size]
        for size, name in SIZE_NAMES.items()
        if size in found.sizes
    }


def decays(kind: str | None, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Decays of the statistics, and their offsets where they are learned."""
    if kind != "small_fc":
        fixed = catalogue.FIXED_DECAYS.get(kind or "")
        return {"decays": {k: list(v) for k, v in fixed.items()}} if fixed else {}
    offsets = {name: arrays[name].tolist() for name in catalogue.DECAYS}
    return {
        "decays": catalogue.effective_decays(offsets),
        "decay_offsets": offsets,
    }


def _origin(published: Published | None, variant: str, format: str) -> dict[str, str]:
    if published is not None:
        return {
            "licence": published.licence,
            "source": f"{published.repo} on the Hugging Face Hub",
        }
    file = "theta.state" if format == "msgpack" else "model.safetensors"
    known = [
        entry
        for entry in catalogue.PUBLISHED
        if (entry.variant, entry.file) == (variant, file)
    ]
    if not known:
        return {"licence": "not in the file", "source": "not in the file"}
    terms = "; ".join(f"{entry.repo}: {entry.licence}" for entry in known)
    repos = ", ".join(entry.repo for entry in known)
    return {
        "licence": f"not in the file; of published weights of this form, {terms}",
        "source": f"not in the file; weights of this form are published as {repos}",
    }
