"""One row of a paper's table, in LaTeX and in Markdown, with a line that says what its columns are."""

from vcgen.evaluation.report.escaping import latex_text, markdown_text
from vcgen.evaluation.report.table import number, title
from vcgen.evaluation.results import Results

ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}


def latex_row(results: Results) -> str:
    r"""Two comments, what was scored and the headings, and the row: ``cars64 & 22.43 & 0.891 \\``."""
    headings = (f"{latex_text(title(results, m)[:-2])} {ARROWS[title(results, m)[-1]]}" for m in results.metrics)
    row = " & ".join([latex_text(results.name), *_means(results)])
    return "\n".join([f"% {latex_text(scored(results))}", rf"% method & {' & '.join(headings)} \\", rf"{row} \\"])


def markdown_row(results: Results) -> str:
    """``| cars64 | 22.43 | 0.891 |``."""
    return f"| {' | '.join([markdown_text(results.name), *_means(results)])} |"


def scored(results: Results) -> str:
    """Protocol, counts, and each column's name with the short form of its definition, as protocol files have it."""
    columns = ", ".join(f"{m} ({results.column(m).definition.split(':')[0]})" for m in results.metrics)
    counts = f"{results.counts['objects']} objects, {results.counts['images']} images"
    return f"{results.protocol['name']}, {counts}: {columns}"


def _means(results: Results) -> list[str]:
    return [number(results.column(metric), results.mean[metric]) for metric in results.metrics]
