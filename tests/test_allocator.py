"""Freed memory is kept for the next step, where the C library allows it."""

import subprocess
import sys

import pytest

from vcgen.memory import keep_freed_memory

#: Page faults of taking, filling and freeing 64 MB ten times, with or without, after some that settle where.
PROGRAM = """
import resource, sys, torch
from vcgen.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.integration
def test_freed_memory_is_taken_again_without_page_faults():
    faults = {}
    for side in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, side], capture_output=True, text=True)
        if done.returncode == 3:
            pytest.skip("the C library has no mallopt, or the environment sets it")
        faults[side] = int(done.stdout)
    assert faults["kept"] < 0.1 * faults["given back"]


@pytest.mark.parametrize("environ", [{"MALLOC_TRIM_THRESHOLD_": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1"}])
def test_what_the_user_has_set_stays(environ):
    assert not keep_freed_memory(environ)
