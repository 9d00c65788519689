"""winnow finds, transfers and attacks lottery tickets (sparse subnetworks)."""

import os
import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
    del sys.path[0]  # `python -m winnow...` imports nothing from the folder it stands in: a numpy.py may lie there

if "WINNOW_WARM" in os.environ:  # a process that has its imports done runs this one's stage
    from winnow.warm import hand_over

    hand_over()

from winnow.errors import WinnowError
from winnow.ticket import Ticket

__all__ = ["Ticket", "WinnowError"]
