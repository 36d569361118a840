"""``python -m tensorgrad``: the console script, for where scripts are not on the path."""

import sys

from .cli import main

sys.exit(main())
