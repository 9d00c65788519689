"""The whole configuration: what every run shares, and one section a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from winnow.config.files import Document, resolve
from winnow.config.parts import FilePath
from winnow.errors import WinnowError
from winnow.pipelines import NAMES, beyond, grid
from winnow.pipelines.double_win.config import DoubleWin
from winnow.pipelines.rare_gems.config import RareGems
from winnow.pipelines.robust_bert.config import RobustBert
from winnow.schema import Part, key, parse


class Root(Part):
    """A configuration file: what `--configfile` names, or config/config.yaml."""

    data_root: FilePath = key("folder with the datasets", "data")
    download: bool = key("allow downloads of datasets and models", False)
    check_data: bool = key("refuse a run whose local data is not there; false: plan it all the same", True)
    device: str = key("auto, cpu, cuda or cuda:N", "auto")
    gpus: int = key(
        "GPUs of a training job on a cluster, all of one node; they share its batches, and sum in another order than "
        "one: another number "
        "is another result, and a job with more asks for as many times the memory and cores", 1, ge=1,
    )  # fmt: skip
    gpu_model: str | None = key("kind of GPU to ask a cluster for, as it spells them (a100); null: any", None)
    workers: int = key("data loading processes for data that is read from files", 2, ge=0)
    scratch: FilePath = key("folder for checkpoints; on a cluster, one that all nodes see", ".winnow/scratch")
    store: FilePath | None = key("folder of finished artifacts that several working folders share; null: none", None)
    container: str | None = key(
        "image in which jobs run under --sdm apptainer, besides the environments of --sdm conda: a .sif file or "
        "docker://... "
        "(requirements/Dockerfile builds one); null: none", None,
    )  # fmt: skip
    checkpoint_seconds: float = key("time between checkpoints, in seconds", 60.0, gt=0)
    silent_minutes: float | None = key(
        "a stage that has finished no step, batch or example for so many minutes saves its state and ends, to be tried "
        "again; above the "
        "time of the longest batch (AutoAttack's); null: it may hang until the job's time is over", None, gt=0,
    )  # fmt: skip
    tensorboard: FilePath | None = key("folder for TensorBoard's event files of every training; null: none", None)
    log_level: Literal["debug", "info", "warning", "error"] = key(
        "what the logs hold besides where a job is and how it ended", "info"
    )
    double_win: DoubleWin | None = key("the double-win pipeline", None)
    robust_bert: RobustBert | None = key("the robust-ticket pipeline", None)
    rare_gems: RareGems | None = key("the rare-gems pipeline", None)

    def sections(self) -> dict[str, Any]:
        """Name -> section of the pipelines that are configured."""
        return {name: section for name in NAMES if (section := getattr(self, name)) is not None}


def load(document: Document | Mapping[str, Any]) -> Root:
    """The checked configuration; WinnowError naming the key, its file and the mend."""
    from winnow.config.refusals import refuse

    if not isinstance(document, Document):
        document = Document(dict(document), {})
    root = parse(Root, document.values, "config", document.origin)
    empty = next((n for n in NAMES if n in document.values), None)
    if empty is not None and not root.sections():
        place = document.origin((empty,))
        raise WinnowError(
            f"config.{empty}: null, and no other pipeline is set: nothing to run; give one of {', '.join(NAMES)}, or "
            "leave it out for the embedded default" + (f" ({place})" if place else "")
        )
    if root.rare_gems is not None and root.rare_gems.from_files:
        from winnow.pipelines.rare_gems.released import with_published

        root = root.having(rare_gems=with_published(root.rare_gems))
    refuse(root, document.origin)
    return root


def load_files(files: Sequence[Path], settings: Mapping[str, Any] | None = None) -> tuple[Root, Document]:
    """The checked configuration of these files, and the document that it was read from."""
    document = resolve(files, settings or {}, NAMES)
    return load(document), document


def targets(root: Root) -> list[str]:
    """Tables and figures of every configured pipeline."""
    sections = root.sections().items()
    return [t for name, section in sections for t in (*grid(name).targets(section), *beyond.targets(name, section))]


def run_arguments(root: Root) -> str:
    """The arguments that every stage gets and that do not change its result."""
    import shlex

    values = {
        "--device": root.device,
        "--workers": root.workers,
        "--data-root": root.data_root,
        "--scratch": root.scratch,
        "--checkpoint-seconds": f"{root.checkpoint_seconds:g}",
        "--log-level": root.log_level,
    }
    if root.silent_minutes is not None:
        values["--silent-minutes"] = f"{root.silent_minutes:g}"
    values |= {f"--{name}": path for name in ("store", "tensorboard") if (path := getattr(root, name)) is not None}
    return " ".join(
        [f"{k} {shlex.quote(str(v))}" for k, v in values.items()] + (["--download"] if root.download else [])
    )
