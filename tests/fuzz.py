"""A fuzzer of everything that vcgen reads: spoiled files are refused in one line, or mean what they meant, or something
else that is valid.

``python tests/fuzz.py`` tries 20,000 files (``make fuzz``); ``--case SEED`` one of them again. What a spoiled file may
mean is judged by rules of the fuzzer's own (fuzz_specs.py), not by the schemas of the package. Time and memory of every
case are bounded."""

import argparse
import contextlib
import dataclasses
import io
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from fuzz_subject import Files, Subject, write  # noqa: E402
from vcgen.errors import UserError  # noqa: E402

#: Of one case: seconds, and bytes of address space beyond those of the process before it.
MOST_SECONDS, MOST_BYTES = 5.0, 1 << 30
EQUAL, VALID, REFUSED, WRONG = "equal", "another valid", "refused", "WRONG"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case. line: the refusal, or what is wrong."""

    seed: int
    kind: str
    result: str
    line: str = ""


class OutOfTime(BaseException):
    """No reader may take it for a fault of the file."""


def try_case(seed: int, subjects: list[Subject]) -> Outcome:
    """Spoil a file, load it, judge the outcome; the seed says which and how."""
    random = Random(seed)
    subject = random.choices(subjects, [subject.fraction for subject in subjects])[0]
    spoiled = subject.spoil(random, subject.files)
    write(subject.folder, spoiled)
    try:
        with bounded(), listening() as said:
            outcome = judge(seed, subject, spoiled)
        return (
            dataclasses.replace(outcome, result=WRONG, line=f"{outcome.line}; said, too: {said[0]}")
            if said
            else outcome
        )
    except (Exception, OutOfTime) as error:  # anything but a refusal
        place = "".join(traceback.format_exception(error)[-4:])
        return Outcome(seed, subject.name, WRONG, f"{type(error).__name__}: {error}\n{place}"[-3000:])
    finally:
        for name in spoiled.keys() - subject.files.keys():
            (subject.folder / name).unlink(missing_ok=True)
        write(subject.folder, {name: subject.files[name] for name in spoiled if name in subject.files})


def judge(seed: int, subject: Subject, spoiled: Files) -> Outcome:
    """Load spoiled files and compare."""
    try:
        meaning = subject.load(subject.folder)
    except UserError as error:
        line = str(error)
        result = REFUSED if line.isprintable() and 0 < len(line) < 1500 and not ran_out(error) else WRONG
        return Outcome(seed, subject.name, result, line)
    if same(meaning, subject.meaning):
        return Outcome(seed, subject.name, EQUAL)
    change = "; ".join(difference(subject.files.get(name, b""), data) for name, data in spoiled.items())
    return Outcome(seed, subject.name, VALID if subject.valid(spoiled) else WRONG, f"{change}\nmeans {meaning!r:.600}")


def ran_out(error: BaseException | None) -> bool:
    """Whether a refusal came only after the memory was taken that the file asks for."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def difference(old: bytes, new: bytes) -> str:
    """The part in which two files differ, and what is before it."""
    start = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
    end = next((i for i, (a, b) in enumerate(zip(old[:start:-1], new[:start:-1])) if a != b), 0)
    before, after = (f"{data[max(0, start - 60) : len(data) - end][:200]!r}" for data in (old, new))
    return f"{before} became {after}"


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise OutOfTime, or let memory run out, where one case takes too much."""

    def stop(number: int, frame: Any) -> None:
        raise OutOfTime(f"took more than {MOST_SECONDS:g} s")

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # the time of the process itself: others may be busy
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """What is warned of, logged or printed meanwhile: a refusal is one line, and nothing else. What diffusers and
    transformers say is theirs.
    """
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.name.startswith(("diffusers", "transformers")):
                said.append(record.getMessage())

    ear, printed = Ear(logging.WARNING), io.StringIO()
    logging.lastResort, last = ear, logging.lastResort
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("always")
            yield said
    finally:
        logging.lastResort = last
        said += [
            str(w.message)
            for w in caught
            if not issubclass(w.category, (DeprecationWarning, FutureWarning, ResourceWarning))
        ]
        # but bars of progress
        said += [line for line in printed.getvalue().splitlines() if line.strip() and "it/s]" not in line]


def same(first: Any, second: Any) -> bool:
    """Whether two meanings are equal: nested containers, arrays and tensors, to the last bit."""
    if isinstance(first, torch.Tensor | np.ndarray) or isinstance(second, torch.Tensor | np.ndarray):
        return (
            type(first) is type(second)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and bool((first == second).all())
        )
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if dataclasses.is_dataclass(first) and type(first) is type(second):
        return same(vars(first), vars(second))
    return first == second


@contextlib.contextmanager
def prepared(only: str = "") -> Iterator[list[Subject]]:
    """All kinds of files, those with a part of the name alone where one is given."""
    import fuzz_evaluation
    import fuzz_layouts
    import fuzz_meshes
    import fuzz_models
    import fuzz_published
    import fuzz_shards
    import fuzz_sources
    import fuzz_weights

    root = Path(tempfile.mkdtemp(prefix="vcgen-fuzz-"))
    try:
        layouts = (fuzz_sources, fuzz_layouts, fuzz_published)
        modules = (fuzz_shards, *layouts, fuzz_meshes, fuzz_evaluation, fuzz_models, fuzz_weights)
        made = [subject for module in modules for subject in module.subjects(root / module.__name__)]
        subjects = [subject for subject in made if only in subject.name]
        for subject in subjects:
            subject.prepare(root / "whole")
        yield subjects
    finally:
        shutil.rmtree(root, ignore_errors=True)


def try_many(task: tuple[range, str]) -> list[Outcome]:
    """A fraction of the cases, in a process of its own."""
    with prepared(task[1]) as subjects:
        return [try_case(seed, subjects) for seed in task[0]]


def table(outcomes: list[Outcome]) -> list[str]:
    """Counts by kind of file."""
    counts = Counter((outcome.kind, outcome.result) for outcome in outcomes)
    results = (EQUAL, VALID, REFUSED, WRONG)
    lines = [f"{'kind of file':32}" + "".join(f"{result:>15}" for result in results)]
    for kind in [*sorted({outcome.kind for outcome in outcomes}), "all"]:
        found = [sum(n for (k, r), n in counts.items() if r == result and kind in (k, "all")) for result in results]
        lines.append(f"{kind:32}" + "".join(f"{n:15,}" for n in found))
    return lines


def main() -> int:
    """Status 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="cases to try")
    parser.add_argument("--start", type=int, default=0, help="seed of the first")
    parser.add_argument("--case", type=int, help="try the case of this seed alone, and show it")
    parser.add_argument(
        "--only", default="", help="kinds of files with this in their name; the cases of a seed are then others"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    choice = parser.parse_args()
    torch.set_num_threads(1)
    seeds = (
        range(choice.start, choice.start + choice.count) if choice.case is None else range(choice.case, choice.case + 1)
    )
    started, number = time.monotonic(), max(1, min(choice.processes, len(seeds)))
    fractions = [(seeds[i::number], choice.only) for i in range(number)]
    if number == 1:
        outcomes = try_many(fractions[0])
    else:
        with multiprocessing.get_context("spawn").Pool(number) as pool:
            outcomes = [outcome for found in pool.map(try_many, fractions, chunksize=1) for outcome in found]
    wrong = [outcome for outcome in outcomes if outcome.result == WRONG]
    for outcome in outcomes if choice.case is not None else wrong:
        only = f" --only '{choice.only}'" if choice.only else ""
        print(
            f"{outcome.kind}: {outcome.result}: {outcome.line}\n  again: python tests/fuzz.py --case"
            f" {outcome.seed}{only}\n"
        )
    print("\n".join(table(outcomes)))
    print(f"{len(outcomes):,} cases, {len(wrong)} wrong, {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
