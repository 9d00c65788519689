"""winnow finds, transfers and attacks lottery tickets (sparse subnetworks)."""

import os

if "WINNOW_WARM" in os.environ:  # a process that has its imports done runs this one's stage
    from winnow.warm import hand_over

    hand_over()

from winnow.errors import WinnowError
from winnow.ticket import Ticket

__all__ = ["Ticket", "WinnowError"]
