"""winnow finds, transfers and attacks lottery tickets (sparse subnetworks). docs/library.md shows the library,
README.md the workflow.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
    del sys.path[0]  # `python -m winnow...` imports nothing from the folder it stands in: a numpy.py may lie there

if "WINNOW_WARM" in os.environ:  # a process that has its imports done runs this one's stage
    from winnow.warm import hand_over

    hand_over()

if TYPE_CHECKING:
    from winnow.api import find_gem, imp, pgd, robust_accuracy, robust_ticket
    from winnow.errors import WinnowError
    from winnow.prune.model import prune
    from winnow.ticket import Ticket
    from winnow.train.masking import enforce

    sparse: Any  # an import here would make every stage depend on its code

_HOME = {
    "Ticket": "winnow.ticket", "WinnowError": "winnow.errors", "enforce": "winnow.train.masking",
    "find_gem": "winnow.api",
    "imp": "winnow.api", "pgd": "winnow.api", "robust_accuracy": "winnow.api", "robust_ticket": "winnow.api",
}  # fmt: skip
__all__ = [
    "Ticket",
    "WinnowError",
    "enforce",
    "find_gem",
    "imp",
    "pgd",
    "prune",
    "robust_accuracy",
    "robust_ticket",
    "sparse",
]


def __getattr__(name: str) -> Any:
    """What is asked for is imported then: `import winnow` takes no torch."""
    from importlib import import_module

    if name in ("prune", "sparse"):  # packages, which can be called
        return import_module(f"winnow.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'winnow' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
