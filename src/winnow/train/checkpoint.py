"""Resumable state on disk: atomic, two generations, a checksum in front, never executed as code.

A file is 32 bytes of sha256 followed by what `torch.save` wrote. A torn newest generation is passed over for the older one.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from winnow.artifacts import write_bytes

log = logging.getLogger("winnow")
_DIGEST = 32


class Checkpoints:
    """The newest state of one job, under a folder keyed by its configuration, code, inputs and outputs; read-only unless it `writes`."""

    def __init__(self, folder: Path, writes: bool = True):
        self.current = folder / "current.ckpt"
        self.previous = folder / "previous.ckpt"
        self.writes = writes
        self.saved = time.monotonic()

    def due(self, seconds: float) -> bool:
        """Whether the last save, or the start, is so many seconds ago."""
        return time.monotonic() - self.saved >= seconds

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state` (tensors, numbers, text, lists, dicts); what was current becomes previous."""
        if self.writes:
            self._write(state)
        self.saved = time.monotonic()

    def _write(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        if self.current.exists():
            os.replace(self.current, self.previous)
        write_bytes(self.current, hashlib.sha256(data).digest() + data)

    def load(self) -> dict[str, Any] | None:
        """The newest complete state, on the CPU; None when there is none."""
        for path in (self.current, self.previous):
            if not path.exists():
                continue
            data = path.read_bytes()
            digest, body = data[:_DIGEST], data[_DIGEST:]
            if hashlib.sha256(body).digest() != digest:
                log.warning("%s is damaged (checksum); the generation before it is used", path)
                continue
            try:
                return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError) as error:
                log.warning("%s cannot be read (%s); the generation before it is used", path, error)
        return None
