"""Pieces of HTML: tables, definitions, figures with their image inside."""

from __future__ import annotations

import html
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tasks import svg, tables
from tasks.statistics import Interval

_MARKS = {"better": "▼ better", "worse": "▲ worse", "no clear difference": "○ unclear"}


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
    source = svg.data_uri(drawn)
    return (
        f'<figure><img src="{source}" alt="{text(caption)}">'
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


def interval(found: Interval, digits: int = 4) -> str:
    """An estimate and its bounds."""
    return soften_bounds(tables.with_interval(found, digits))


def mark(verdict: str | None) -> str:
    """A verdict below a number, told by sign, weight and slope but no colour."""
    if verdict is None:
        return ""
    style = verdict if verdict in ("better", "worse") else ""
    shown = _MARKS.get(verdict, verdict)
    return f'<span class="verdict {style}">{shown}</span>'


def links(pairs: Iterable[tuple[str, str]]) -> str:
    """Links to anchors of the page, with what they say."""
    return "".join(f'<a href="#{to}">{text(name)}</a> ' for to, name in pairs)


def anchor(name: str) -> str:
    """The anchor of the section of that name.

    Example:
      >>> anchor("mlp(width=8)")
      'task-mlp-width-8-'
    """
    return "task-" + "".join(c if c.isalnum() else "-" for c in name)
