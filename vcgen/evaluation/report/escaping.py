"""Text in reports. Names of models, views, objects and protocols come from files of anybody: in a report they are text
and nothing else.
"""

import html
import re

from vcgen.terminal import printable

#: What Markdown would take for a link, an image, emphasis, code, a table's border or a formula. Underscores inside
#: words are none, nor are brackets alone.
MARKDOWN = re.compile(r"([\\`*|~$]|\](?=[\[(:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")

#: What LaTeX would take for a command, a comment, a column, a formula or an accent.
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def html_text(value: str) -> str:
    """For HTML, between tags or in an attribute; white space is one space."""
    return html.escape(printable(" ".join(value.split())))


def markdown_text(value: str) -> str:
    """For a line or a table's cell of Markdown."""
    return MARKDOWN.sub(r"\\\1", html.escape(printable(" ".join(value.split())), quote=False))


def markdown_code(value: str) -> str:
    """For Markdown as code, which ends at as many backticks as it began with."""
    text = printable(" ".join(value.split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def latex_text(value: str) -> str:
    """For a cell of a LaTeX table."""
    return "".join(LATEX.get(character, character) for character in printable(" ".join(value.split())))
