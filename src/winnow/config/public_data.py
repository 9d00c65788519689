"""What is known of public data sets without opening them: the one source for checks before any job and for costs."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """Classes, examples of the training and the test split (of GLUE: the labelled one that is tested on), and of images
    the side in pixels that networks see by default.
    """

    classes: int
    train: int
    test: int
    side: int | None = None


PUBLIC = {
    "digits": Known(10, 1348, 449, 8),
    "cifar10": Known(10, 50000, 10000, 32),
    "cifar100": Known(100, 50000, 10000, 32),
    "svhn": Known(10, 73257, 26032, 32),
    "imagenet": Known(1000, 1281167, 50000, 224),
    "embedded": Known(2, 2400, 600),
    "imdb": Known(2, 25000, 25000),
    "ag_news": Known(4, 120000, 7600),
    "sst2": Known(2, 67349, 872),
    "qnli": Known(2, 104743, 5463),
    "qqp": Known(2, 363846, 40430),
    "mnli": Known(3, 392702, 9815),
}
OTHER = Known(10, 50000, 10000)  # what costs take a set of the user's own for
