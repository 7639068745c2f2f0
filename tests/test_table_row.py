"""The row for a paper's table, in LaTeX and Markdown."""

import re

import pytest
from msgspec import structs

from small_evaluation import gray_shards, run
from vcgen.evaluation.report.escaping import LATEX, latex_text
from vcgen.evaluation.report.row import latex_row, markdown_row


@pytest.fixture
def results(tmp_path):
    found = run(gray_shards(tmp_path / "shards"), tmp_path / "out", name="my_model 50%")[0]
    return structs.replace(found, mean={"psnr": 22.456, "ssim": 0.89149, "lpips_vgg": 0.1})


def test_the_latex_row_has_the_means_as_they_are_printed_and_says_what_its_columns_are(results):
    assert latex_row(results).splitlines() == [
        r"% tiny, 4 objects, 20 images: psnr (db-per-image), ssim (scikit-image), lpips\_vgg (v0.1)",
        r"% method & PSNR, dB $\uparrow$ & SSIM $\uparrow$ & LPIPS-vgg $\downarrow$ \\",
        r"my\_model 50\% & 22.46 & 0.891 & 0.100 \\",
    ]


def test_the_markdown_row_has_the_same_cells(results):
    assert markdown_row(results) == "| my_model 50% | 22.46 | 0.891 | 0.100 |"


def test_both_reports_end_with_the_row(results, tmp_path):
    row = r"my\_model 50\% & 13.98 & "
    assert row in (tmp_path / "out" / "report.md").read_text().split("## A row for a paper's table")[1]
    assert row.replace("&", "&amp;") in (tmp_path / "out" / "report.html").read_text().split("</pre>")[-2]


def test_no_name_steers_latex():
    name = "\\input{/etc/passwd} % & $x^2$ #1 a_b {~} `\n\\write18{ls}"
    text = latex_text(name)
    assert "\n" not in text
    for command in sorted(LATEX.values(), key=len, reverse=True):
        text = text.replace(command, "")
    assert not re.search(r"[\\&%$#_{}~^`]", text)
