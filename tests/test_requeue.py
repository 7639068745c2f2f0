"""Being told to stop: loader processes that go on, one checkpoint at the next boundary, one requeue, and an exit status that says so."""

import os
import signal

import pytest
from torch.utils.data import DataLoader, IterableDataset

from vcgen.data.datamodule import leave_signals_to_the_trainer


class Processes(IterableDataset):
    """Endlessly the number of the process it is in."""

    def __iter__(self):
        while True:
            yield os.getpid()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_loader_processes_outlive_the_signals(number):
    stream = iter(DataLoader(Processes(), batch_size=None, num_workers=1, worker_init_fn=leave_signals_to_the_trainer))
    worker = next(stream)
    assert worker != os.getpid()
    os.kill(worker, number)
    assert [next(stream) for _ in range(20)] == [worker] * 20  # more than are fetched ahead
