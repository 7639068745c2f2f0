"""benchmarks/memory.py: a part's memory is its own, whatever was taken before it."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import memory

CPU = torch.device("cpu")


@pytest.mark.integration
@pytest.mark.skipif(not memory.CLEAR.exists(), reason="this system has no high-water mark to reset")
def test_a_part_does_not_inherit_an_earlier_peak():
    with memory.watch_memory(CPU) as large:
        torch.ones(100_000_000)  # 400 MB
    with memory.watch_memory(CPU) as small:
        torch.ones(20_000_000)  # 80 MB
    with memory.watch_memory(CPU) as nothing:
        pass
    assert large.exact and small.exact
    assert (
        large.added == pytest.approx(400e6, abs=20e6)
        and small.added == pytest.approx(80e6, abs=20e6)
        and nothing.added < 20e6
    )
    assert large.bytes - small.bytes > 250e6


def test_where_the_mark_cannot_be_reset_the_peak_so_far_is_named_as_such(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path)  # a folder: nothing can be written to it
    with memory.watch_memory(CPU) as peak:
        pass
    assert not peak.exact and peak.added is None and peak.bytes > 1e6
