"""Pieces of HTML: tables, definitions, figures with their image inside."""

from __future__ import annotations

import base64
import html
import importlib.resources
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tasks import plots


def text(value: Any) -> str:
    """Any value as text that HTML does not interpret.

    Example:
      >>> text("a < b")
      'a &lt; b'
    """
    return html.escape(str(value))


def document(title: str, body: Iterable[str]) -> str:
    """A whole page with its style inside, without any script."""
    style = importlib.resources.files("tasks").joinpath("report.css").read_text("utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title>",
            f"<style>\n{style}</style></head>",
            "<body>",
            *body,
            "</body></html>",
            "",
        ]
    )


def table(
    head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], shaded: str = ""
) -> str:
    """A table from HTML cells; the row of the name `shaded` is set off."""
    lines = ['<div class="scroll"><table><thead><tr>']
    lines += [f'<th scope="col">{cell}</th>' for cell in head]
    lines.append("</tr></thead><tbody>")
    for name, cells in rows:
        lines.append('<tr class="shaded">' if name == shaded else "<tr>")
        lines.append(f'<th scope="row">{text(name)}</th>')
        lines += [f"<td>{cell}</td>" for cell in cells]
        lines.append("</tr>")
    return "".join(lines) + "</tbody></table></div>"


def definitions(facts: Mapping[str, Any]) -> str:
    """Names and what they stand for."""
    pairs = (f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts.items())
    return "<dl>" + "".join(pairs) + "</dl>"


def figure(drawn: Figure, caption: str) -> str:
    """A figure as an SVG image inside the page, with a caption."""
    buffer = io.BytesIO()
    with plots.style():
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    source = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{source}" alt="{text(caption)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def soften_bounds(estimate_and_bounds: str) -> str:
    """`estimate [low, high]` with the bounds less prominent.

    Example:
      >>> soften_bounds("1 [0, 2]")
      '1 <span class="bounds">[0, 2]</span>'
    """
    estimate, bracket, bounds = estimate_and_bounds.partition(" [")
    if not bracket:
        return text(estimate)
    return f'{text(estimate)} <span class="bounds">[{text(bounds)}</span>'
