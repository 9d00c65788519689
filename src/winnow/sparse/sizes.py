"""How small a ticket can be stored: bits for the places of the kept weights, against the entropy bound.

A layer that keeps k of n weights at random places needs n H(k/n) bits, whatever the code. What LZMA's adaptive range
coder makes of the gaps between kept weights, or of the packed bits, comes close; a layer whose kept weights lie
together needs less than the bound.
"""

from __future__ import annotations

import lzma
from math import log2
from typing import Any

import numpy as np

from winnow.ticket import Ticket

# no context between bytes: gaps depend neither on each other nor on their place
_PLAIN = [{"id": lzma.FILTER_LZMA1, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]


def bound_bits(total: int, kept: int) -> float:
    """Bits for the places of `kept` out of `total` weights when all choices are as likely: total * H(kept / total)."""
    shares = [n / total for n in (kept, total - kept) if 0 < n < total]
    return -total * sum(p * log2(p) for p in shares)


def compressed_bits(mask: np.ndarray) -> int:
    """Bits for the places of a mask's kept weights, in the smaller of two codes: packed bits under LZMA, or gaps.

    Of a gap the low bits, which are as good as random, stand as they are (Rice, 1979); the rest goes through LZMA.
    """
    places = np.flatnonzero(mask)
    low = max(0, int(log2(mask.size / max(1, len(places)) / 16)))
    gaps = np.diff(places, prepend=-1) - 1
    return min(_coded(np.packbits(mask).tobytes()), _coded(_bytes(gaps >> low)) + low * len(gaps))


def _coded(code: bytes) -> int:
    return 8 * len(lzma.compress(code, lzma.FORMAT_RAW, filters=_PLAIN))


def report(ticket: Ticket) -> list[dict[str, Any]]:
    """The rows of `ticket.report()` with bits a kept weight: of the ticket's own file, compressed, and the bound.

    bits_stored (one bit a weight of the layer), bits_compressed, bits_bound; None where nothing is kept. The last row
    is the whole: layers coded one by one, the bound that of their own counts.
    """
    whole = {"total": 0, "compressed": 0, "bound": 0.0}
    rows = []
    for row in ticket.report():
        if row["name"] == "total":
            found = whole
        else:
            bits = compressed_bits(ticket.arrays[row["name"]])
            found = {"total": row["total"], "compressed": bits, "bound": bound_bits(row["total"], row["kept"])}
            whole = {k: whole[k] + found[k] for k in whole}
        kept = row["kept"]
        names = {"bits_stored": "total", "bits_compressed": "compressed", "bits_bound": "bound"}
        rows.append({**row, **{k: found[v] / kept if kept else None for k, v in names.items()}})
    return rows


def _bytes(numbers: np.ndarray) -> bytes:
    """A byte for each number; 255 stands for 255 and goes on."""
    whole = numbers // 255
    code = np.full(int(whole.sum()) + len(numbers), 255, np.uint8)
    code[np.cumsum(whole + 1) - 1] = numbers % 255
    return code.tobytes()
