"""One row of a paper's table, in LaTeX and in Markdown, with a line that says what its columns are."""

from vcgen.evaluation.report.escaping import latex_text, markdown_text
from vcgen.evaluation.report.table import distance_number, distance_title, number, title
from vcgen.evaluation.results import Results


def latex_row(results: Results) -> str:
    r"""Two comments, what was scored and the headings, and the row: ``cars64 & 22.43 & 0.891 \\``."""
    headings = [title(results, metric) for metric in results.metrics]
    headings += [f"{distance_title(name)} ↓" for name in results.distances]
    arrows = (rf"{latex_text(text[:-2])} $\{'up' if text[-1] == '↑' else 'down'}arrow$" for text in headings)
    row = " & ".join([latex_text(results.name), *_numbers(results)])
    return "\n".join([f"% {latex_text(scored(results))}", rf"% method & {' & '.join(arrows)} \\", rf"{row} \\"])


def markdown_row(results: Results) -> str:
    """``| cars64 | 22.43 | 0.891 |``."""
    return f"| {' | '.join([markdown_text(results.name), *_numbers(results)])} |"


def scored(results: Results) -> str:
    """Protocol, counts, and each column's name with the short form of its definition, as protocol files have it."""
    columns = [f"{m} ({results.column(m).definition.split(':')[0]})" for m in results.metrics]
    columns += [
        f"{name} (of {d.predicted} predicted and {d.true} true images)" for name, d in results.distances.items()
    ]
    counts = f"{results.counts['objects']} objects, {results.counts['images']} images"
    return f"{results.protocol['name']}, {counts}: {', '.join(columns)}"


def _numbers(results: Results) -> list[str]:
    means = [number(results.column(metric), results.mean[metric]) for metric in results.metrics]
    return means + [distance_number(name, distance) for name, distance in results.distances.items()]
