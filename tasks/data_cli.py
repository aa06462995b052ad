"""`python -m tasks data`: which data are there, and token files from text."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import textwrap
from typing import Annotated, Literal

import tyro

from tasks.data import catalogue, load_images, load_text
from tasks.data.files import ENVIRONMENT_VARIABLES
from tasks.data.prepare import prepare

_EXTRAS = {
    "tiktoken": "tokenizers",
    "sentencepiece": "tokenizers",
    "tensorflow_datasets": "tfds",
}


@dataclasses.dataclass(frozen=True)
class Check:
    """Say of every data set whether it is there, where it was looked for, what to get.

    Attributes:
      data_dir: The folder of data sets; by default that of MADA_DATA_DIR.
    """

    data_dir: pathlib.Path | None = None

    def run(self) -> None:
        """Prints a line for each data set, and what is missing below it."""
        for name, load in (("digits", load_images), ("python_docs", load_text)):
            try:
                _show("found", f"{name}: {load(name).source}")
            except FileNotFoundError as error:
                _show("missing", str(error))
        folder = self.data_dir or any(map(os.environ.get, ENVIRONMENT_VARIABLES))
        if not folder:
            print(
                "no folder of data sets is given: pass --data-dir or set "
                f"{ENVIRONMENT_VARIABLES[0]}; each set has a folder in it"
            )
        for status in catalogue.check(self.data_dir):
            if status.found is None:
                source = catalogue.SOURCES[status.name]
                where = f"{source.name}, in {' or '.join(source.folders)}"
                _show(
                    "missing",
                    status.problem if folder else f"{where}. {source.wanted}",
                )
                continue
            unit = "tokens" if status.found.paths[0].suffix == ".bin" else "rows"
            rows = "" if status.num_rows is None else f", {status.num_rows:,} {unit}"
            what = f"{status.found.layout}, {status.num_bytes / 1e6:,.1f} MB{rows}"
            line = f"{status.name}: {what} in {status.found.folder}"
            if status.problem:
                _show("broken", f"{line}: {status.problem}")
            else:
                _show("found", line)
        for library, extra in _EXTRAS.items():
            if importlib.util.find_spec(library):
                _show("found", f"{library}, an optional library")
            else:
                remedy = f"pip install 'mada-optax[{extra}]'"
                _show("missing", f"{library}, an optional library: {remedy}")


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Write train.bin, val.bin and meta.json from text, for load_token_files.

    Attributes:
      source: tiny_shakespeare, wikitext2, python_docs or lm1b; or a file of text, plain
        or .gz; or a folder of such files.
      out: The folder to write to.
      tokenizer: What a token is.
      sentencepiece_model: The file of the model, for the tokenizer sentencepiece.
      valid: A file or a folder of text to validate on.
      valid_fraction: How much of the end of the text is for validation, if it has no
        such part.
      row_length: Make every line a row of so many tokens, cropped or padded with 0.
      data_dir: The folder of data sets; by default that of MADA_DATA_DIR.
      overwrite: Replace such files in the folder.
    """

    source: tyro.conf.Positional[str]
    out: pathlib.Path
    tokenizer: Literal["byte", "character", "gpt2", "sentencepiece"]
    sentencepiece_model: pathlib.Path | None = None
    valid: pathlib.Path | None = None
    valid_fraction: float = 0.1
    row_length: int | None = None
    data_dir: pathlib.Path | None = None
    overwrite: bool = False

    def run(self) -> None:
        """Writes the files and prints what is in them."""
        meta = prepare(**dataclasses.asdict(self))
        for split, num_tokens in meta["tokens"].items():
            print(f"{split}: {num_tokens:,} tokens of {meta['bytes'][split]:,} bytes")
        print(
            f"{meta['vocab_size']:,} different tokens, {meta['dtype']}, in {self.out}"
        )


Command = (
    Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Prepare, tyro.conf.subcommand("prepare", prefix_name=False)]
)


def _show(state: str, text: str) -> None:
    print(
        textwrap.fill(
            f"{state:8} {text}",
            width=100,
            subsequent_indent=" " * 9,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
