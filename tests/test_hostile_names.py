"""Names from files of anybody are text wherever they go: terminal, tables, progress bars, Markdown, HTML, names of
files.
"""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from msgspec import structs

from scenes import make_record
from small_evaluation import PROTOCOL, Oracle, gray_shards, run
from stand_in import BallSystem
from test_render_command import CONFIG, QUICK, red_box
from training import refusal
from vcgen.checkpoints import model_folder as folder
from vcgen.cli import evaluate as command, main as cli
from vcgen.cli.doctor.finding import Finding
from vcgen.data.formats.remarks import print_remarks
from vcgen.data.shards.faults import Faults
from vcgen.data.shards.files import read_index, write_shards
from vcgen.errors import UserError
from vcgen.evaluation.report.escaping import html_text, markdown_code, markdown_text
from vcgen.evaluation.report.report import markdown, page
from vcgen.evaluation.results import load_results
from vcgen.evaluation.runner import images
from vcgen.terminal import LONGEST, complain, printable, say, unstyled
from vcgen.training.callbacks import together

#: What steers a terminal: color, its title, erasing a line, another line, the direction of what follows, half a
#: character pair.
CONTROLS = "\x1b[31m\x1b]0;title\x07\r\x08\x9b2J\nnext\u202eright\ud800"
MARKUP = (
    "[/final][red]<script>alert(1)</script><img src=x"
    " onerror=alert(1)>|`*a*`_b_~~c~~[d](https://example.com)$e$&amp;\"'"
)
HOSTILE = MARKUP + CONTROLS


def one_clean_line(text: str) -> bool:
    return text.endswith("\n") and text[:-1].isprintable() and "\x1b" not in text


def test_every_way_of_complaining_is_one_line_of_plain_text(capsys, monkeypatch):
    def refuse(_):
        raise UserError(f"scene {HOSTILE}: is bad; leave it out")

    monkeypatch.setattr(cli, "COMMANDS", {"doctor": (f"{__name__}:_command", "")})
    monkeypatch.setitem(globals(), "_command", refuse)
    monkeypatch.setattr(together.os, "_exit", lambda status: None)
    assert cli.main(["doctor"]) == 2
    said = [capsys.readouterr().err]
    for speak in (
        lambda: cli.main([HOSTILE.replace("\ud800", "")]),
        lambda: together.end([], 2, HOSTILE),
        lambda: complain(HOSTILE, "warning"),
        lambda: print_remarks([(HOSTILE, HOSTILE)]),
        lambda: say(HOSTILE),
        lambda: print(Finding("ok", "data", HOSTILE)),
    ):
        speak()
        said.append("".join(capsys.readouterr()))
    said.append(cli.one_line(UserWarning(HOSTILE), UserWarning, str(Path(cli.__file__)), 1))
    said.append(cli.one_line(UserWarning(HOSTILE), UserWarning, "/else/where.py", 1))
    assert [text for text in said if not one_clean_line(text)] == []
    assert (
        said[0].startswith("vcgen: error: scene [/final]")
        and said[0].endswith("leave it out\n")
        and r"\x1b[31m" in said[0]
    )


def test_a_message_is_cut_in_its_middle_and_keeps_what_to_do(capsys):
    complain(f"scene {'a' * 100_000}: is bad; leave it out")
    line = capsys.readouterr().err
    assert (
        len(line) < LONGEST + 50
        and line.startswith("vcgen: error: scene aaa")
        and line.endswith("is bad; leave it out\n")
    )


def test_scenes_that_are_skipped_are_named_in_plain_text(tmp_path, capsys):
    index = write_shards([make_record(f"k{i}", count=2) for i in range(2)], tmp_path / "out", (8, 6))
    Faults(index).add({"k0": HOSTILE})
    assert one_clean_line(capsys.readouterr().err)


def test_inspecting_a_data_set_prints_lines_and_nothing_else(tmp_path, capsys):
    records = [make_record(f"k{i}", count=3, group=f"g{i}") for i in range(2)]
    write_shards(records, tmp_path / "in", (8, 6))
    path = tmp_path / "in" / "index.json"
    content = json.loads(path.read_text()) | {
        "source": HOSTILE.replace("\ud800", ""),
        "licence": HOSTILE.replace("\ud800", ""),
    }
    path.write_text(json.dumps(content))
    assert cli.main(["data", "inspect", str(tmp_path / "in"), "--out", "none"]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n")) and r"\x1b[31m" in out and "\nnext" not in out


class Tags(HTMLParser):
    """The tags of a page, with the attributes that could do something, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.odd, self.text = set(), [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.odd += [
            (tag, name)
            for name, value in attrs
            if name.startswith("on") or (name in ("href", "src") and value[:5] != "data:")
        ]

    def handle_data(self, data):
        self.text += data


def seen(html: str) -> Tags:
    found = Tags()
    found.feed(html)
    found.close()
    return found


def hostile(results):
    """Results in which every text is hostile."""
    other = {"mean": results.mean, "interval95": results.interval95, "difference": {}}
    objects = [{**row, "object": HOSTILE, "group": HOSTILE} for row in results.objects]
    images = [{**row, "object": HOSTILE, "view_name": HOSTILE} for row in results.images]
    return structs.replace(
        results,
        name=HOSTILE,
        objects=objects,
        images=images,
        baselines={HOSTILE: other},
        missing={HOSTILE: HOSTILE},
        skipped={HOSTILE: HOSTILE},
        definitions={HOSTILE: HOSTILE},
        hashes={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        run={HOSTILE: HOSTILE},
        protocol={**results.protocol, "name": HOSTILE, "description": HOSTILE},
    )


@pytest.fixture
def results(tmp_path):
    return run(gray_shards(tmp_path / "shards"), tmp_path / "out")[0]


def test_a_page_holds_the_tags_of_every_page(results, tmp_path):
    index = read_index(tmp_path / "shards")

    def show(key, views):
        return images(Oracle(51), index, "a1", views, PROTOCOL, "cpu")

    plain, odd = seen(page(results, show)), seen(page(hostile(results), show))
    assert odd.tags <= plain.tags | {"p", "h2"} and "script" not in odd.tags and plain.odd == odd.odd == []
    assert "<script>alert(1)</script>" in odd.text and "\x1b" not in odd.text


def test_a_markdown_report_is_text_and_keeps_its_tables(results):
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = seen(reader.render(markdown(hostile(results))))
    assert found.tags <= {
        "h1",
        "h2",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "strong",
        "code",
        "pre",
    }
    assert found.odd == [] and "<script>alert(1)</script>" in found.text and "*a*" in found.text
    rows = [line for line in markdown(hostile(results)).splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert columns == {len(results.metrics) + 2}


@pytest.mark.parametrize("text", ["lpips_vgg", "24.53 [24.10, 24.96]", "cars64_view0_sparse", "A - B; c/d"])
def test_plain_text_stays_as_it_is(text):
    assert (
        html_text(text) == markdown_text(text) == printable(text) == str(unstyled(text)) == text
        and markdown_code(text) == f"`{text}`"
    )


def test_code_ends_where_it_should():
    html = MarkdownIt("commonmark", {"html": True}).render(markdown_code("a``` <b> `c"))
    assert html == "<p><code>a``` &lt;b&gt; `c</code></p>\n"


def test_a_method_with_the_name_of_a_style_is_evaluated_and_compared(tmp_path, capsys):
    shards = gray_shards(tmp_path / "shards")
    protocol = replace(PROTOCOL, name="[/final]")
    run(shards, tmp_path / "other", protocol=protocol, name=MARKUP[:150])
    other = load_results(tmp_path / "other")
    results, _ = run(shards, tmp_path / "out", protocol=protocol, name="[/final]", others=[other])
    command._announce(results, tmp_path / "[/final]")
    out = capsys.readouterr().out
    assert "[/final], 4 objects" in out and "/[/final]/report.html" in out.replace("\n", "")
    assert "<script" not in (tmp_path / "out" / "report.md").read_text()
    command._announce(None, tmp_path / "[/final]")


def test_photos_of_any_name_are_rendered(tmp_path, capsys):
    model = folder.save(tmp_path / "[/ball]", BallSystem(size=0.3).state_dict(), CONFIG)
    photo = red_box(tmp_path / "[/final]\x1b[31m\n.png")
    out = tmp_path / "[/out]"
    assert (
        cli.main(["render", "--model", str(model), "--image", str(photo), "--views", "1", *QUICK, "--out", str(out)])
        == 0
    )
    said = capsys.readouterr()
    assert "\x1b[31m" not in said.out + said.err and r"[/final]\x1b[31m\n.png -> " in said.out
    photo.write_bytes(b"none")
    line = refusal(
        capsys, cli.main(["render", "--model", str(model), "--image", str(photo), *QUICK, "--out", str(out)])
    )
    assert line.isprintable()


@pytest.mark.parametrize("key", ["../out", "/etc/passwd", "a/b", "a.b", "", "a" * 81, "a\0b", "\u00e9"])
def test_keys_that_would_name_other_files_are_no_keys(tmp_path, key):
    with pytest.raises(UserError, match="scene key"):
        write_shards([make_record(key, count=2)], tmp_path / "out", (8, 6))
    index = write_shards([make_record("k0", count=2)], tmp_path / "out", (8, 6))
    path = index.folder / "index.json"
    path.write_text(path.read_text().replace('"k0"', json.dumps(key)))
    with pytest.raises(UserError, match=r"index.json"):
        read_index(index.folder)


def test_views_name_no_files(tmp_path):
    """View names are free text: what is written is numbered."""
    views = ["../../escape", "/etc/passwd", "<b>"]
    record = make_record("k0", count=3, views=sorted(views))
    index = write_shards([record], tmp_path / "out", (8, 6))
    assert index.read(0).views == sorted(views)
    assert cli.main(["data", "inspect", str(index.folder), "--out", str(tmp_path / "drawn")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "drawn"}
    assert {path.suffix for path in (tmp_path / "drawn").iterdir()} == {".png"}
