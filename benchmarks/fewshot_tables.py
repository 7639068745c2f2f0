"""The tables of benchmarks/fewshot.py."""

#: What rows of training cars are called by, after the member's name.
HELD_OUT_VIEWS = ", held-out views of training cars"


def table(rows: list[dict]) -> list[str]:
    """Markdown: a line for each member and number of views."""
    lines = [
        "| method | minutes | views | PSNR dB (95 %) | over copying, dB | over mean image, dB | SSIM | LPIPS-squeeze |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in sorted(rows, key=lambda r: (r["minutes"], HELD_OUT_VIEWS in r["name"], r["name"], r["views"])):
        low, high = r["interval95"]["psnr"]
        over, mean = (r[key]["mean"] if key in r else None for key in ("over_copy", "over_mean"))
        lines.append(
            f"| {r['name']} | {r['minutes']:g} | {r['views']} | {r['psnr']:.2f} ({low:.2f} to {high:.2f}) |"
            f" {'' if over is None else format(over, '+.2f')} | {'' if mean is None else format(mean, '+.2f')} |"
            f" {r['ssim']:.3f} |"
            f" {'' if r['lpips'] is None else format(r['lpips'], '.3f')} |"
        )
    return lines


def cost_table(costs: list[dict]) -> list[str]:
    """Markdown: what each member costs."""
    lines = [
        "| method | minutes | million weights | thousand multiply-adds a pixel | image, s | encoding, s | steps |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {c['name']} | {c['minutes']:g} | {c['parameters'] / 1e6:.2f} | {c['mac_per_pixel'] / 1e3:.0f} |"
        f" {c['rendering_seconds']:.2f} | {c['encoding_seconds']:.2f} | {c['steps']} |"
        for c in costs
    ]


def scores(row: dict) -> list[str]:
    """PSNR and, where there were weights for it, LPIPS."""
    return [f"{row['psnr']:.2f}"] + ([] if row["lpips"] is None else [f"{row['lpips']:.3f}"])


def summary(rows: list[dict], costs: list[dict]) -> list[str]:
    """Markdown: a line for each method, with PSNR / LPIPS by the number of input views, and PSNR of new views of
    training cars.
    """
    tests, trained = ({}, {})
    for r in rows:
        name, held_out = r["name"].removesuffix(HELD_OUT_VIEWS), HELD_OUT_VIEWS in r["name"]
        name = "copying the nearest view" if name.startswith("copy") else name.replace("_", " ")
        (trained if held_out else tests)[(r["minutes"], name, r["views"])] = r
    views = sorted({r["views"] for r in rows})
    heads = [f"{count} view{'s' if count > 1 else ''}" for count in views]
    lines = [
        f"| method | minutes | {' | '.join(heads)} | new views of training cars | image, s | steps |",
        "| --- " * (len(views) + 5) + "|",
    ]
    for minutes, name in dict.fromkeys(key[:2] for key in tests):
        found = (tests.get((minutes, name, count)) for count in views)
        cells = ["" if r is None else " / ".join(scores(r)) for r in found]
        new = [f"{r['psnr']:.2f} with {count}" for (m, n, count), r in trained.items() if (m, n) == (minutes, name)]
        cost = next((c for c in costs if (c["minutes"], c["name"]) == (minutes, name)), None)
        took = ["", ""] if cost is None else [f"{cost['rendering_seconds']:.2f}", str(cost["steps"])]
        lines.append(f"| {' | '.join([name, f'{minutes:g}', *cells, ', '.join(new), *took])} |")
    return lines
