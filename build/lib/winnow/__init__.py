"""winnow finds, transfers and attacks lottery tickets (sparse subnetworks)."""

from winnow.errors import WinnowError
from winnow.ticket import Ticket

__all__ = ["Ticket", "WinnowError"]
