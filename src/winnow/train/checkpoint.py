"""Resumable state on disk: atomic, two generations, a checksum in front, never executed as code.

A file is 32 bytes of sha256 followed by what `torch.save` wrote. A torn newest generation is passed over for the older
one.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from winnow import outside
from winnow.artifacts import write_bytes
from winnow.run import Run
from winnow.train import ranks

log = logging.getLogger("winnow")
CURRENT, PREVIOUS = "current.ckpt", "previous.ckpt"
_DIGEST = 32


class Checkpoints:
    """The newest state of one training or evaluation in `folder` (None: nothing is kept); read-only unless it
    `writes`.
    """

    def __init__(self, folder: Path | None, writes: bool = True):
        self.folder, self.writes = folder, writes and folder is not None
        self.saved = time.monotonic()

    @classmethod
    def of(cls, run: Run) -> Checkpoints:
        """Those of `run`; of several processes the first one writes. Raises WinnowError when another training has
        them.
        """
        return cls(run.claim_checkpoints(), ranks.rank() == 0)

    def due(self, seconds: float) -> bool:
        """Whether `seconds` have passed since the last save, or since the start."""
        return time.monotonic() - self.saved >= seconds

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state` (tensors, numbers, text, lists, dicts); what was current becomes previous."""
        if self.folder is not None and self.writes:
            self._write(self.folder, state)
        self.saved = time.monotonic()

    def _write(self, folder: Path, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        current = folder / CURRENT
        with suppress(FileNotFoundError):
            os.replace(current, folder / PREVIOUS)
        write_bytes(current, hashlib.sha256(data).digest() + data)

    def load(self) -> dict[str, Any] | None:
        """The newest complete state, on the CPU; None when there is none."""
        if self.folder is None:
            return None
        for name in (CURRENT, PREVIOUS):
            path = self.folder / name
            if not path.is_file() or path.is_symlink():
                continue
            data = outside.read_bytes(path)
            digest, body = data[:_DIGEST], data[_DIGEST:]
            if hashlib.sha256(body).digest() != digest:
                log.warning("%s is damaged (checksum); the generation before it is used", path)
                continue
            try:
                return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError) as error:
                log.warning("%s cannot be read (%s); the generation before it is used", path, error)
        return None
