"""Shared folders to and from the Hugging Face hub, where there is a network; refused in one line where there is
none.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from winnow.errors import WinnowError
from winnow.share import statement


def push(folder: Path, name: str) -> None:
    """Upload a folder that holds by its statement as the repository `name` (owner/name)."""
    statement.check(folder)
    hub = _hub(name)
    try:
        api = hub.HfApi()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder))
    except Exception as error:  # requests, httpx and the hub each raise their own
        raise _refused(name, "sent", error) from None


def pull(name: str, to: Path, public_key: Path | None = None) -> int:
    """Fetch the repository `name` and check it; returns the number of its files. What does not hold does not stay."""
    if to.exists():
        raise WinnowError(f"{to}: is there already; give a folder that is new")
    hub = _hub(name)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".winnow-pull-") as folder:
        made = Path(folder) / "pulled"
        try:
            hub.snapshot_download(name, local_dir=made)
        except Exception as error:
            raise _refused(name, "fetched", error) from None
        shutil.rmtree(made / ".cache", ignore_errors=True)
        (made / ".gitattributes").unlink(missing_ok=True)  # the hub's own
        count = statement.check(made, public_key)
        made.rename(to)
    return count


def fetch(name: str, file: str) -> Path:
    """The path of one file of the repository `name`, fetched unless it was before."""
    hub = _hub(name)
    try:
        return Path(hub.hf_hub_download(name, file))
    except Exception as error:
        raise _refused(name, "fetched", error) from None


def _hub(name: str) -> Any:
    if name.count("/") != 1 or not all(name.split("/")):
        raise WinnowError(f"{name!r} is not owner/name, a repository of the hub")
    try:
        import huggingface_hub
    except ImportError:
        raise WinnowError("the hub: huggingface_hub is not installed; pip install 'winnow[share]'") from None
    return huggingface_hub


def _refused(name: str, what: str, error: Exception) -> WinnowError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return WinnowError(
        f"{name}: cannot be {what} ({reason}); run this where there is a network, logged in with `hf auth login`"
    )
