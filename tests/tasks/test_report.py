"""The page and the figures: complete, self-contained, from records alone."""

import html.parser
import re
import urllib.parse
import xml.etree.ElementTree

import numpy as np
import pytest
from test_results import BASELINE, FASTER, NAN, runs

from tasks import plots, records
from tasks.results import Results

VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def results():
    shaky = [[9, 2, 1, NAN, NAN], *FASTER[1:]]
    return Results(
        [
            *runs("adamw", BASELINE),
            *runs("faster", FASTER),
            *runs("<b>&shaky", shaky),
            *runs("adamw", BASELINE, task="other task"),
        ]
    )


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    path = results.to_html(tmp_path_factory.mktemp("report") / "report.html")
    return path.read_text("utf-8")


def test_the_page_is_well_formed_and_says_what_was_found(page):
    parsed = Page(page)
    assert parsed.open == []
    for expected in (
        "task: the lowest final validation loss is 2.500, by faster.",
        "Against adamw, better: faster; no clear difference: <b>&shaky.",
        "<b>&shaky: seed 0 diverged at step 75.",
        "3.000 [2.000, 4.000]",
        "python -m tasks evaluate toys",
        "ab" * 32,
        "optax:faster(0.1)",
    ):
        assert expected in parsed.text


def test_the_page_needs_nothing_from_elsewhere(page):
    parsed = Page(page)
    assert {"script", "link", "iframe", "object"}.isdisjoint(parsed.tags)
    for name, value in parsed.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml,%3C", "#"))
    assert "url(" not in re.sub(r'"data:[^"]*"', "", page)
    assert "@import" not in page


def test_links_inside_the_page_lead_somewhere(page):
    attributes = Page(page).attributes
    targets = {value for name, value in attributes if name == "id"}
    links = {value[1:] for name, value in attributes if name == "href"}
    assert links == targets


def test_figures_have_captions_and_are_images(page):
    sources = re.findall(r'<img src="data:image/svg\+xml,([^"]+)" alt="[^"]', page)
    assert len(sources) == page.count("<figcaption>") == 5
    for source in sources:
        svg = urllib.parse.unquote(source)
        assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
        assert "href='http" not in svg


def test_everything_regenerates_from_the_records(results, page, tmp_path):
    cells = {(r.task, r.optimizer): [] for r in results.records}
    for record in results.records:
        cells[record.task, record.optimizer].append(record)
    for of_cell in cells.values():
        records.write(tmp_path, of_cell)
    loaded = Results.load(tmp_path)
    assert sorted(loaded.table()) == sorted(results.table())
    assert loaded.to_html() == tmp_path / "report.html"
    assert loaded.to_html().read_text() == loaded.to_html().read_text()


def test_results_in_memory_need_a_path(results):
    with pytest.raises(ValueError, match="path is None"):
        results.to_html()


def test_figures_are_written_and_name_every_optimizer(results, tmp_path):
    made = results.plot(tmp_path)
    assert set(made) == {
        f"{task}.{kind}"
        for task in ("task", "other task")
        for kind in ("loss", "hyperparams")
    } | {"all.profiles"}
    assert len(list(tmp_path.glob("*.png"))) == len(made)
    for axes in made["task.loss"].axes:
        said = {t.get_text() for t in axes.texts}
        assert {"adamw", "faster", "<b>&shaky (1/3 diverged)"} <= said


def test_curves_differ_without_colour(results):
    for axes in results.plot()["task.loss"].axes:
        lines = [x for x in axes.lines if x.get_marker() != "None"]
        assert len(lines) == 3
        assert len({x.get_linestyle() for x in lines}) == 3
        assert len({x.get_marker() for x in lines}) == 3


def test_hyperparams_are_drawn_where_they_change(results):
    axes = results.plot()["task.hyperparams"].axes
    assert [a.get_title(loc="left") for a in axes] == ["b1", "b2"]
    still = Results(runs("adamw", BASELINE, hyperparams={"b1": np.ones(5)}))
    assert set(still.plot()) == {"task.loss"}


def test_a_task_where_everything_diverged_still_has_a_page(tmp_path):
    gone = Results(runs("adamw", [[NAN] * 5] * 3))
    assert "3/3" in gone.table()
    Page(gone.to_html(tmp_path / "page.html").read_text())


def test_labels_are_pushed_apart_in_order():
    placed = plots._spread([0.5, 0.5, 0.49, 0.9], gap=0.1)
    assert np.all(np.diff(np.sort(placed)) > 0.09)
    assert placed[2] == min(placed)
    assert placed[3] == max(placed)
