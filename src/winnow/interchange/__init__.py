"""Weights and masks in other people's files: reading them without running their code, and writing the released
layouts.
"""

from winnow.interchange.heads import head_of
from winnow.interchange.masks import Found, Rule, tickets_from_file
from winnow.interchange.names import Fitted, fit, stands_beside
from winnow.interchange.reading import read_checkpoint
from winnow.interchange.writing import Layout, write_layout

__all__ = [
    "Fitted",
    "Found",
    "Layout",
    "Rule",
    "fit",
    "head_of",
    "read_checkpoint",
    "stands_beside",
    "tickets_from_file",
    "write_layout",
]
