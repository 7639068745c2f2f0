"""``vcgen fit`` whose ``trainer.max_time`` counts the processor time of its process, all threads together, instead of
the clock's: runs beside other work then learn as long as runs alone.

  python benchmarks/processor_time.py -c configs/lfn64.yaml --trainer.max_time 00:00:10:00
"""

import sys
import time
from types import SimpleNamespace

from lightning.pytorch.callbacks import timer

from vcgen.cli.main import main

if __name__ == "__main__":
    # Lightning's Timer, which ends a run and tells how much of it is over, asks this name alone.
    timer.time = SimpleNamespace(monotonic=time.process_time)
    sys.exit(main(["fit", *sys.argv[1:]]))
