"""Pictures of attention hold the weights they are given, and every label in full."""

from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

import keras_rnnkit as rk

SOURCE, TARGET = ["ich", "<b>&", " "], ["I", "$x$"]
WEIGHTS = [[0.125, 0.75, 0.0], [0.0, 0.25, 0.625]]


@pytest.fixture
def figure_of():
    pytest.importorskip("matplotlib")
    return rk.plots.attention


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def texts(labels):
    return [label.get_text() for label in labels]


def test_the_heat_map_holds_weights_and_tokens(figure_of):
    figure = figure_of(SOURCE, TARGET, WEIGHTS, "a title")
    panel, bar = figure.axes
    (image,) = panel.images
    np.testing.assert_array_equal(image.get_array(), WEIGHTS)
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "Blues"
    assert texts(panel.get_xticklabels()) == ["ich", "<b>&", "␣"]
    assert texts(panel.get_yticklabels()) == ["I", "$x$"]
    assert list(panel.get_xticks()) == [0, 1, 2]
    assert list(panel.get_yticks()) == [0, 1]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("source", "target")
    assert (panel.get_xlim(), panel.get_ylim()) == ((-0.5, 2.5), (1.5, -0.5))
    assert figure.get_suptitle() == "a title"
    assert bar.get_ylabel() == "weight"


def test_the_greatest_weight_of_a_row_has_a_dot(figure_of):
    weights = [*WEIGHTS, [0, 0, 0], [0.4, 0.3, 0.3]]
    panel = figure_of(SOURCE, [*TARGET, "-", "."], weights).axes[0]
    (dots,) = panel.collections
    assert dots.get_offsets().tolist() == [[1, 0], [2, 1], [0, 3]]
    light = dots.get_facecolors()[:, :3].min(axis=1) == 1
    assert light.tolist() == [True, True, False]


def test_padding_is_left_out(figure_of, rng):
    padded = softmax(rng.normal(size=(6, 5)))
    padded[2:] = padded[:, 3:] = np.nan
    panel = figure_of(SOURCE, TARGET, padded).axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), padded[:2, :3])


def test_every_head_has_its_panel(figure_of, rng):
    heads = softmax(rng.normal(size=(5, 7, 9)))
    panels = figure_of("a source!", "targets", heads).axes[:-1]
    drawn = [panel.images[0].get_array() for panel in panels]
    np.testing.assert_array_equal(drawn, heads)
    assert [panel.get_title() for panel in panels] == [f"head {i}" for i in range(1, 6)]
    (one,) = figure_of("a source!", "targets", heads[:1]).axes[:-1]
    assert one.get_title() == "head 1"


@pytest.mark.parametrize("long", [False, True], ids=["characters", "words"])
@pytest.mark.parametrize(
    ("source", "target", "heads"),
    [(3, 3, 1), (3, 60, 1), (60, 3, 1), (60, 60, 1), (20, 12, 4)],
)
def test_labels_are_within_the_figure_and_apart(
    figure_of, rng, source, target, heads, long
):
    def tokens(count):
        return [("incomprehensible" if i % 2 else "WW") * long or "W" for i in count]

    weights = softmax(rng.normal(size=(heads, target, source)))
    figure = figure_of(tokens(range(source)), tokens(range(target)), weights)
    figure.draw_without_rendering()
    assert figure.get_size_inches().max() <= 20
    for panel in figure.axes[:-1]:
        rows = [label.get_window_extent() for label in panel.get_yticklabels()]
        columns = [label.get_window_extent() for label in panel.get_xticklabels()]
        assert (len(rows), len(columns)) == (target, source)
        for box in [*rows, *columns]:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
        assert all(above.y0 > below.y1 - 1 for above, below in pairwise(rows))
        assert all(left.x1 < right.x0 + 1 for left, right in pairwise(columns))


class Page(HTMLParser):
    """What a page says: its tags, its tables as rows of cells, its headings."""

    EMPTY = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.said = [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("" if tag == "th" else dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "th":
            self.tables[-1][-1][-1] += data
        for tag in {"title", "h1", "h2"} & set(self.open):
            self.said.setdefault(tag, []).append(data)


def test_a_page_holds_tokens_weights_and_tooltips():
    page = Page(rk.plots.attention_html([(SOURCE, TARGET, WEIGHTS)], "<i>&"))
    (((corner, *columns), *rows),) = page.tables
    assert (corner, columns) == ("", ["ich", "<b>&", "␣"])
    assert [row[0] for row in rows] == TARGET
    cells = [row[1:] for row in rows]
    assert [[cell["title"] for cell in row] for row in cells] == [
        ["0.12", "0.75", "0.00"],
        ["0.00", "0.25", "0.62"],
    ]
    for cell in (cell for row in cells for cell in row):
        shade = f"--w:{cell['title']}" if cell["title"] != "0.00" else None
        assert cell.get("style") == shade
    assert [["class" in cell for cell in row] for row in cells] == [
        [False, True, False],
        [False, False, True],
    ]
    assert page.said["title"] == page.said["h1"] == ["<i>&"]
    assert "".join(page.said["h2"]) == "ich <b>&   → I $x$"


def test_a_page_needs_nothing_else_and_is_the_same_again(rng):
    examples = [("abc", "wxyz", softmax(rng.normal(size=(4, 3)))) for _ in range(3)]
    text = rk.plots.attention_html(examples)
    assert text == rk.plots.attention_html(iter(examples))
    page = Page(text)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not {"src", "href"} & {name for _, attrs in page.tags for name in attrs}
    assert "url(" not in text
    assert "http" not in text
    viewport = {"name": "viewport", "content": "width=device-width,initial-scale=1"}
    assert ("meta", viewport) in page.tags
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert page.said["title"] == ["Attention"]
    assert "h1" not in page.said
    assert "".join(page.said["h2"]) == "abc → wxyz" * 3
    assert [len(table) for table in page.tables] == [5, 5, 5]


def test_a_page_cuts_padding_and_shows_each_head(rng):
    heads = softmax(rng.normal(size=(2, 6, 5)))
    page = Page(rk.plots.attention_html([(SOURCE, TARGET, heads), ("", "", heads)]))
    assert len(page.tables) == 4
    for table, head in zip(page.tables, heads, strict=False):
        shown = [[float(cell["title"]) for cell in row[1:]] for row in table[1:]]
        np.testing.assert_allclose(shown, head[:2, :3], atol=0.005001)
    assert page.tables[2:] == [[[""]], [[""]]]


def test_only_long_columns_are_turned():
    def turned(source):
        page = Page(rk.plots.attention_html([(source, "ab", np.eye(2))]))
        return [attrs for tag, attrs in page.tags if tag == "table"]

    assert turned(["AH", "B"]) == [{}]
    assert turned(["one", "B"]) == [{"class": "long"}]


def figure(*example):
    pytest.importorskip("matplotlib")
    return rk.plots.attention(*example)


def page(*example):
    return rk.plots.attention_html([("a", "b", [[1]]), example])


@pytest.mark.parametrize(("draw", "name"), [(figure, ""), (page, " of example 1")])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"be `\(target, source\)` or .* received shape \(3,\)"),
        (np.ones((0, 2, 3)), r"be `\(target, source\)` or .* shape \(0, 2, 3\)"),
        (
            np.ones((1, 3)),
            r"cover 2 target and 3 source .* received shape \(1, 3\)",
        ),
        (np.ones((4, 2, 2)), r"cover 2 target and 3 source .* shape \(4, 2, 2\)"),
        ([[0, 1, 0], [0, np.nan, 0]], r"be finite and lie in \[0, 1\]; received nan"),
        ([[0, 1, 0], [0, np.inf, 0]], r"be finite and lie in \[0, 1\]; received inf"),
        ([[0, 1, 0], [0, -0.5, 0]], r"be finite and lie in \[0, 1\]; received -0.5"),
        ([[0, 1, 0], [0, 1.01, 0]], r"be finite and lie in \[0, 1\]; received 1.01"),
    ],
)
def test_weights_that_do_not_fit_are_refused(draw, name, weights, message):
    with pytest.raises(ValueError, match=f"^`weights`{name} must {message}"):
        draw(SOURCE, TARGET, weights)


@pytest.mark.parametrize("name", ["source_tokens", "target_tokens"])
def test_a_figure_of_no_token_is_refused(figure_of, name):
    tokens = {"source_tokens": SOURCE, "target_tokens": TARGET} | {name: []}
    with pytest.raises(ValueError, match=f"`{name}` must hold a token"):
        figure_of(**tokens, weights=WEIGHTS)
