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
