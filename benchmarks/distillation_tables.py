"""The tables of benchmarks/distillation.py: every method, its gain over the first one, and methods beside NGD at NGD's
LPIPS.

A row is what ``distillation.row`` makes: name, psnr, ssim, lpips, interval95, seconds, virtual_psnr, difference,
kid_x1000. Where there were no weights for LPIPS, lpips is None and its cells are empty; kid_x1000 is missing."""

from dataclasses import asdict

from vcgen.evaluation.results import Results
from vcgen.evaluation.statistics import paired_difference

#: Methods that were run at two scales of classifier-free guidance each.
PAIRS = (("sds", "sds_guided"), ("ngd_gamma0", "ngd_gamma0_guided"))


def report(rows: list[dict]) -> list[str]:
    """All tables, as Markdown."""
    return [*table(rows), *differences(rows), *level(rows), *beside(rows)]


def table(rows: list[dict]) -> list[str]:
    """Markdown."""
    lines = [
        "| method | PSNR dB (95 %) | SSIM (95 %) | LPIPS-squeeze (95 %) | KID x 1000 | virtual views dB | s / object |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        columns = (("psnr", 2), ("ssim", 3), ("lpips", 3))
        scores = " | ".join(
            ""
            if r[name] is None
            else "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(r[name], *r["interval95"][name], d=digits)
            for name, digits in columns
        )
        virtual = "" if r["virtual_psnr"] is None else f"{r['virtual_psnr']:.1f}"
        kid = f"{r['kid_x1000']:.1f}" if "kid_x1000" in r else ""
        lines.append(f"| {r['name']} | {scores} | {kid} | {virtual} | {r['seconds']:.1f} |")
    return lines


def differences(rows: list[dict]) -> list[str]:
    """Markdown: what each method gains over the first one, object by object."""
    lines = [
        "",
        (
            f"Paired differences to {rows[0]['name']} (95 % intervals over models of objects; fraction of objects that"
            " are better):"
        ),
        "",
        "| method | PSNR dB | SSIM | LPIPS-squeeze |",
        "| --- | --- | --- | --- |",
    ]
    for r in rows[1:]:
        digits = {"psnr": 2, "ssim": 3, "lpips_squeeze": 3}
        cells = [gain(r["difference"][m], digits[m]) if m in r["difference"] else "" for m in digits]
        lines.append(f"| {r['name']} | {' | '.join(cells)} |")
    return lines


def level_fraction(low: dict, high: dict, target: dict) -> float | None:
    """How far from ``low`` to ``high`` the target's LPIPS lies, linearly, in [0, 1]. None where it lies outside, and
    without LPIPS."""
    if None in (low["lpips"], high["lpips"], target["lpips"]) or low["lpips"] == high["lpips"]:
        return None
    fraction = (target["lpips"] - low["lpips"]) / (high["lpips"] - low["lpips"])
    return fraction if 0 <= fraction <= 1 else None


def levelled(rows: list[dict]) -> list[tuple[dict, dict, float]]:
    """The methods of two scales between which the last row's LPIPS lies: the rows of both scales, and the fraction of
    the way.
    """
    found = {row["name"]: row for row in rows}
    pairs = [(found[a], found[b]) for a, b in PAIRS if a in found and b in found]
    fractions = [(low, high, level_fraction(low, high, rows[-1])) for low, high in pairs]
    return [entry for entry in fractions if entry[2] is not None]


def level(rows: list[dict]) -> list[str]:
    """Markdown: PSNR and SSIM at the last method's LPIPS, linearly between the two scales of those that have two;
    nothing outside.
    """
    target, lines = rows[-1], []
    for low, high, fraction in levelled(rows):
        psnr, ssim = (low[name] + fraction * (high[name] - low[name]) for name in ("psnr", "ssim"))
        lines.append(f"| {low['name']} | {psnr:.2f} | {ssim:.4f} |")
    if not lines:
        return []
    own = f"| {target['name']} | {target['psnr']:.2f} | {target['ssim']:.4f} |"
    head = ["", f"At LPIPS {target['lpips']:.4f}:", "", "| method | PSNR dB | SSIM |", "| --- | --- | --- |"]
    return [*head, *lines, own]


def add_beside(rows: list[dict], results: list[Results]) -> None:
    """The last row's paired differences to each method of :func:`level`, object by object: entry "beside", method ->
    metric -> difference. The fraction of the way between a method's scales is the one of the means, for every
    object."""
    columns = {result.name: {entry["object"]: entry for entry in result.objects} for result in results}
    groups = {entry["object"]: entry["group"] for entry in results[-1].objects}
    own, found = columns[rows[-1]["name"]], {}
    for low, high, fraction in levelled(rows):
        a, b = columns[low["name"]], columns[high["name"]]
        found[low["name"]] = {
            metric: asdict(
                paired_difference(
                    {name: own[name][metric] for name in groups},
                    {name: (1 - fraction) * a[name][metric] + fraction * b[name][metric] for name in groups},
                    groups,
                )
            )
            for metric in ("psnr", "ssim")
        }
    rows[-1]["beside"] = found


def beside(rows: list[dict]) -> list[str]:
    """Markdown: the differences of :func:`add_beside`; nothing in rows without any."""
    found = rows[-1].get("beside")
    lines = [
        "",
        (
            f"Paired differences of {rows[-1]['name']} to them there (95 % intervals over models of objects; fraction"
            " of objects that are better):"
        ),
        "",
        "| to | PSNR dB | SSIM |",
        "| --- | --- | --- |",
    ]
    return (
        lines + [f"| {name} | {gain(d['psnr'], 2)} | {gain(d['ssim'], 4)} |" for name, d in found.items()]
        if found
        else []
    )


def gain(difference: dict, digits: int) -> str:
    """A paired difference with its interval, which fewer than two models do not have."""
    interval = (
        "" if difference["interval"] is None else " ({:+.{d}f} to {:+.{d}f})".format(*difference["interval"], d=digits)
    )
    return f"{difference['mean']:+.{digits}f}{interval}; {difference['improved']:.0%}"
