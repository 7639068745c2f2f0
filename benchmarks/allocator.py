"""What keeping freed memory (vcgen/memory.py) is worth on a CPU: the same work with and without it, in processes of
their own, in turns.

  python benchmarks/allocator.py
  python benchmarks/allocator.py --quick      shows only that the program works

Seconds are the least of a process's calls; the ratio is the median over rounds of processes that ran one after another.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from common import command_line, hardware, save_results
from timing import table
from vcgen.memory import keep_freed_memory

#: What is timed of configs/cars64.yaml, and how often in each process.
WORK = {"training step": ("train", 12), "image": ("render", 100)}


def work(keep: bool, quick: bool) -> dict[str, dict[str, float]]:
    """Least seconds and page faults per call, in this process, and its peak of memory in MB."""
    if keep and not keep_freed_memory():
        raise SystemExit("allocator: this computer's C library does not have mallopt, or the environment sets it")
    torch.set_num_threads(1)
    from subject import Subject

    subject, found = Subject.build("cars64", quick), {}
    for name, (method, calls) in WORK.items():
        call, times = getattr(subject, method), []
        call()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(2 if quick else calls):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        used = resource.getrusage(resource.RUSAGE_SELF)
        found[name] = {
            "seconds": min(times),
            "faults": (used.ru_minflt - faults) / len(times),
            "peak_mb": used.ru_maxrss / 1024,
        }
    return found


def in_process(keep: bool, quick: bool) -> dict[str, dict[str, float]]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--child", "kept" if keep else "given back", *(["--quick"] if quick else [])]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def report(rounds: list[tuple[dict, dict]]) -> tuple[dict, list[str]]:
    """Figures and their table."""
    figures, rows = {}, []
    for name in WORK:
        plain, kept = ([side[name] for side in sides] for sides in zip(*rounds, strict=True))
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(plain, kept, strict=True))
        middle = {
            side: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for side, runs in (("given_back", plain), ("kept", kept))
        }
        figures[name] = {**middle, "ratio": ratio}
        for side, values in middle.items():
            cells = [f"{1000 * values['seconds']:.1f}", f"{values['faults']:,.0f}", f"{values['peak_mb']:.0f}"]
            rows.append([name, side.replace("_", " "), *cells, f"{ratio:.2f}" if side == "kept" else ""])
    return figures, table("One thread", ["work", "freed memory", "ms", "page faults", "peak MB", "as fast"], rows)


def main() -> None:
    """Measure, print, file."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=("kept", "given back"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(work(chosen.child == "kept", chosen.quick)))
        return
    count = 1 if chosen.quick else chosen.rounds
    figures, lines = report([(in_process(False, chosen.quick), in_process(True, chosen.quick)) for _ in range(count)])
    print("\n".join(lines))
    figures = {"program": "allocator", "hardware": hardware(), "rounds": count, "work": figures}
    save_results("allocator", figures, lines, chosen.quick)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
