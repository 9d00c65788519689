"""Bring pre-trained weights in from a file, torchvision or the Hugging Face hub, checked name by name and shape by shape.

Wrapper prefixes (module., model., 0., 1.) and input normalisation layers are understood; anything else that does not fit is
listed and refused. The result is a weights artifact like pretrain's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.config.jobs import ImportWeights
from winnow.stage import Job, Stage

stage = Stage(
    "import_weights",
    ImportWeights,
    inputs={"file?": "the local weights file, for weights.file"},
    outputs={"out": "dense weights", "metrics": "what was read"},
)


@stage
def main(job: Job[ImportWeights]) -> None:
    """Fetch, check, rename, write."""
    from winnow import interchange
    from winnow.artifacts import sha256_file
    from winnow.errors import WinnowError
    from winnow.vision import models
    from winnow.vision.fetch import fetch_weights

    cfg = job.config
    path = (
        job["file"] if isinstance(job.inputs["file"], Path) else fetch_weights(cfg.weights, job.run.data_root, job.run.download)
    )
    digest = sha256_file(path)
    if cfg.weights.sha256 is not None and digest != cfg.weights.sha256.lower():
        raise WinnowError(
            f"{path}: sha256 is {digest}, expected {cfg.weights.sha256}; fetch the file again or correct the config"
        )
    model = models.build(cfg.model, cfg.num_classes)
    state, normalisation = interchange.split_normalisation(interchange.read_checkpoint(path))
    state = interchange.dense_names(interchange.match_names(state, set(model.state_dict())))
    models.load_state(model, state, str(path))
    job.write_weights("out", model.state_dict(), model=models.spec(cfg.model, cfg.num_classes), prunable=models.prunable(model))
    job.write_metrics(
        "metrics", {"file_sha256": digest, "tensors": len(state), "normalisation_left_out": sorted(normalisation)}
    )


if __name__ == "__main__":
    sys.exit(stage.run())
