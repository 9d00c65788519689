"""Pack an ImageFolder, a tar of one, or an npz of JPEG bytes: into a folder for `dataset: packed`, or an .npz for
`dataset: npz`.

A folder holds a set of any size, read in batches from memory-mapped pixels; `--workers N` packs with N processes, and a
run that was cut off goes on where it stopped. An .npz is for sets that fit into memory. Not part of the workflow: run
it once by hand.
"""

from __future__ import annotations

import sys

from winnow.errors import WinnowError
from winnow.schema import Part, key
from winnow.stage import Job, Stage, log


class PackImages(Part):
    """Configuration of pack_images."""

    image_size: int | None = key(
        "resize every image to a square of this side; null: keep sizes (an .npz needs one size)", None, ge=1
    )
    short_side: int | None = key("resize every image so that its short side has this length (folders only)", None, ge=1)


stage = Stage(
    "pack_images",
    PackImages,
    inputs={"source": "folder or tar with train/<class>/<image> and test/ or val/, or an .npz of JPEG bytes"},
    outputs={"out": "the folder, or the .npz file"},
)


@stage
def main(job: Job[PackImages]) -> None:
    """Read, decode, write."""
    from winnow.vision import pack_arrays, packing

    cfg, out = job.config, job["out"]
    if cfg.image_size is not None and cfg.short_side is not None:
        raise WinnowError("config: image_size and short_side are both set; set one of them")
    if out.suffix != ".npz":
        resize = packing.Resize(cfg.image_size, cfg.short_side)
        counts = packing.pack(job["source"], out, resize, max(1, job.run.workers))
    elif cfg.short_side is not None:
        raise WinnowError(f"{out}: images in an .npz have one size; set image_size, or name a folder")
    else:
        counts = pack_arrays.pack(job["source"], out, cfg.image_size)
    log.info("%s: %s", out, ", ".join(f"{k} {v}" for k, v in counts.items()))


if __name__ == "__main__":
    sys.exit(stage.run())
