"""The one source of randomness: a counter-based generator keyed by everything that a draw may depend on.

A draw depends on its key (seed, source, sample, occurrence, purpose...) and on nothing else: not on workers,
ranks, order or history. Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A generator of its own for a seed and a key of numbers and words."""
    digest = hashlib.blake2b(b"".join(map(_coded, (seed, *key))), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8")))


def _coded(part: int | str) -> bytes:
    """One part of a key, its length first: so ("a", "bc") and ("ab", "c") differ; 1 and "1" differ too."""
    coded = str(part).encode("utf-8", "surrogatepass")  # names of files need not be valid Unicode
    return f"{len(coded)}{'s' if isinstance(part, str) else 'i'}".encode() + coded
