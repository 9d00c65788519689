"""Pack an ImageFolder, a tar of one, or an npz of JPEG bytes into the .npz of uint8 arrays that `dataset: npz` reads.

Small sets then load in a moment and live on the device. Not part of the workflow: run it once by hand.
"""

from __future__ import annotations

import sys

from winnow.schema import Part, key
from winnow.stage import Job, Stage, log


class PackImages(Part):
    """Configuration of pack_images."""

    image_size: int | None = key("resize every image to this side; null: keep, all must have one size", None, ge=1)


stage = Stage(
    "pack_images",
    PackImages,
    inputs={"source": "folder or tar with <train|test|val>/<class>/<image>, or an .npz of JPEG bytes"},
    outputs={"out": "the .npz file"},
)


@stage
def main(job: Job[PackImages]) -> None:
    """Read, decode, write."""
    from winnow.vision.packing import pack

    counts = pack(job["source"], job["out"], job.config.image_size)
    log.info("%s: %s", job["out"], ", ".join(f"{k} {v}" for k, v in counts.items()))


if __name__ == "__main__":
    sys.exit(stage.run())
