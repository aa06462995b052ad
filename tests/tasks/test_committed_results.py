"""The records that are committed with the package still make whole, small pages."""

import pathlib

import pytest
from test_report import Page

from tasks.results import Results

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results"
FOUND = sorted(path.parent for path in RESULTS.glob("*/records"))


@pytest.mark.parametrize("directory", FOUND, ids=lambda path: path.name)
def test_committed_records_make_a_page(directory, tmp_path):
    results = Results.load(directory)
    page = results.to_html(tmp_path / "page.html").read_text()
    assert len(page) < 60_000 * (1 + page.count("<img"))
    parsed = Page(page)
    assert parsed.open == []
    targets = {value for name, value in parsed.attributes if name == "id"}
    links = {value[1:] for name, value in parsed.attributes if name == "href"}
    assert links == targets
    for task in results.summaries():
        assert task in parsed.text
