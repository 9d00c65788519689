"""Bring pre-trained weights in from a file, torchvision or the Hugging Face hub, checked name by name and shape by
shape.

Understood: wrapper prefixes (module., model., 1.), input normalisation layers, auxiliary classifiers, older names, the
tensors that the papers' programs keep beside weights, profilers' counters. Anything else that does not fit is listed
and refused. The result is a weights artifact like pretrain's.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from winnow.config.jobs import ImportWeights
from winnow.stage import Job, Stage

log = logging.getLogger("winnow")

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
        job["file"]
        if isinstance(job.inputs["file"], Path)
        else fetch_weights(cfg.weights, job.run.data_root, job.run.download)
    )
    digest = sha256_file(path)
    if cfg.weights.sha256 is not None and digest != cfg.weights.sha256.lower():
        raise WinnowError(
            f"{path}: sha256 is {digest}, expected {cfg.weights.sha256}; fetch the file again or correct the config"
        )
    model = models.build(cfg.model, cfg.num_classes)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    state = interchange.read_checkpoint(path, cfg.weights.entry)
    fitted = interchange.fit(state, shapes, models.networks.auxiliary(cfg.model.arch))
    left_out, tensors = list(fitted.left_out), dict(fitted.tensors)
    if (bias := models.networks.last_layer(model)[0] + ".bias") in tensors and bias not in shapes:
        left_out.append(bias)
        del tensors[bias]
    models.load_state(model, tensors, str(path))
    normalisation = {k: v.tolist() for k, v in fitted.normalisation.items()}
    told = {"mean": cfg.model.mean, "std": cfg.model.std}
    for name, values in normalisation.items():
        if any(abs(a - b) > 1e-3 for a, b in zip(values, told[name], strict=False)):
            log.warning(
                "%s: its network normalises with %s %s, model.%s is %s", path, name, values, name, list(told[name])
            )
    if left_out:
        log.info("%s: left out %s", path, ", ".join(left_out[:6]) + (", ..." if len(left_out) > 6 else ""))
    job.write_weights(
        "out",
        model.state_dict(),
        model=models.spec(cfg.model, cfg.num_classes),
        prunable=models.prunable(model, cfg.model.layers),
    )
    job.write_metrics(
        "metrics",
        {"file_sha256": digest, "tensors": len(tensors), "left_out": left_out, "normalisation": normalisation},
    )


if __name__ == "__main__":
    sys.exit(stage.run())
