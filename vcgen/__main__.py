"""``python -m vcgen``: the ``vcgen`` command."""

import sys

from vcgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
