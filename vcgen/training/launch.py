"""How ``vcgen fit`` and ``vcgen validate`` begin: signals are listened to before anything heavy is imported."""

import os

from vcgen.training.stopping import Stopped, StopSignals, conclude


def main(words: list[str]) -> int:
    """Entry point of both commands: ``words`` is the command line after ``vcgen``. Returns the exit status."""
    # PyTorch's own warnings, a stack of C++ for each try to connect, would bury the line that says who is missing.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with StopSignals() as signals:
        from vcgen.training.fit import run

        try:
            run(words, signals)
        except Stopped as stopped:
            return conclude(stopped)
    return 0
