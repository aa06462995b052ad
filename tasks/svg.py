"""Figures as small SVG images."""

from __future__ import annotations

import io
import re
import urllib.parse

from matplotlib.figure import Figure

from tasks import plots

_PLAIN_IN_ATTRIBUTES = " ='/:;,()!"
_NOT_DRAWN = re.compile(
    r'<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', re.S
)
_NOT_NEEDED = re.compile(r" transform='rotate\(-0 [^']*'")


def data_uri(drawn: Figure) -> str:
    """The figure as the source of an `img` element."""
    buffer = io.StringIO()
    with plots.style():
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    small = compact(buffer.getvalue())
    return f"data:image/svg+xml,{urllib.parse.quote(small, safe=_PLAIN_IN_ATTRIBUTES)}"


def compact(svg: str) -> str:
    """Matplotlib's SVG at a third of its size, to a tenth of a point.

    Example:
      >>> path = '<path d="M 1.2345 2 L 3.0412 4" style="fill: red"/>'
      >>> print(compact(f'<style></style> {path} <g id="a">1.2345</g>'))
      <style>.a{fill:red}</style><path d='M1.2 2L3 4' class='a'/><g>1.2345</g>
    """
    svg = _NOT_DRAWN.sub("", svg).replace("'DejaVu Sans'", "DejaVu Sans")
    svg = re.sub(r"\s*(<[^>]*>)\s*", lambda tag: _compact_tag(tag[1]), svg)
    styles = list(dict.fromkeys(re.findall(r"style='([^']*)'", svg)))
    names = {style: _name(i) for i, style in enumerate(styles)}
    svg = re.sub(r"style='([^']*)'", lambda x: f"class='{names[x[1]]}'", svg)
    rules = "".join(f".{name}{{{style}}}" for style, name in names.items())
    return svg.replace("</style>", f"{rules}</style>", 1).replace("<g></g>", "")


def _compact_tag(tag: str) -> str:
    """One tag in single quotes, without spaces and digits that nobody sees."""
    tag = re.sub(r"\s+", " ", tag.replace('"', "'"))
    tag = re.sub(r"-?\d+\.\d{3,}", lambda x: f"{round(float(x[0]), 1):g}", tag)
    return re.sub(
        r"(?<=[MLCQz;:,]) | (?=[MLCQz'](?![a-z]))", "", _NOT_NEEDED.sub("", tag)
    )


def _name(i: int) -> str:
    return chr(97 + i % 26) + (str(i // 26) if i >= 26 else "")
