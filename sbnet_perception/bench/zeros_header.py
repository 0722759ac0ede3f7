"""A low-bit copy of the header as a mask: which pixels it would leave the header to compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.zeros_network import Layer, Watch, watched
from sbnet_perception.blocks import Pixels, SparseMap, Tiles
from sbnet_perception.blocks.pixels import ABSENT
from sbnet_perception.detector.network import Detector, PreparedDetector


class Replace(Watch):
    """The copy of so many bits instead of the layer."""

    def __init__(self, bits: int) -> None:
        self.copies = (bits,)

    def see(self, layer: Layer, exact: Tensor, copies: Any) -> Tensor:
        (copy,) = copies.values()
        return copy.relu()


class HeaderCopies:
    """Runs copies of the header beside it, and keeps how far every pixel is above the score threshold.

    A distance is that of the logits, the largest over the classes; it is positive where the pixel is a detection.
    """

    def __init__(self, network: Detector, thresholds: Sequence[float], bits: Sequence[int]) -> None:
        self._network = network
        self._least = torch.tensor([math.log(score / (1.0 - score)) for score in thresholds])
        self._headers = {number: watched(network, Replace(number)).header for number in bits}
        self._pixels: list[Pixels] = []
        self._exact: list[Tensor] = []
        self._copies: dict[int, list[Tensor]] = {number: [] for number in bits}

    def beside(self, prepared: PreparedDetector) -> PreparedDetector:
        """The network, watched at its header and unchanged in what it computes."""
        first, *others = prepared.header

        def run_copies(x: SparseMap, tiles: Tiles) -> SparseMap:
            for bits, header in self._headers.items():
                copy = x
                for layer in header:
                    copy = layer(copy, tiles)
                self._copies[bits].append(self._distance(copy, tiles))
            result: SparseMap = first(x, tiles)
            return result

        def keep(x: SparseMap, tiles: Tiles) -> SparseMap:
            self._pixels.append(tiles.pixels)
            self._exact.append(self._distance(x, tiles))
            result: SparseMap = prepared.branches(x, tiles)
            return result

        return replace(prepared, header=[run_copies, *others], branches=keep)

    def _distance(self, x: SparseMap, tiles: Tiles) -> Tensor:
        logits = self._network.logits(x, tiles)
        assert isinstance(logits, SparseMap)
        return (logits.values - self._least).amax(1)

    def rows(self) -> list[Row]:
        """What each copy keeps when it must keep every pixel that is above the threshold in any frame; frames' means.

        ``computed`` is the share of the header's work that remains: each convolution also computes what the next one
        reads around the pixels that are kept.
        """
        above = torch.cat(self._exact) > 0
        rows: list[Row] = []
        for bits, found in self._copies.items():
            cut = torch.cat(found)[above].min() if above.any() else torch.tensor(torch.inf)
            kept = [copy >= cut for copy in found]
            depth = len(self._network.header)
            shares = [computed_shares(pixels, mask, depth) for pixels, mask in zip(self._pixels, kept, strict=True)]
            rows.append(
                {
                    "table": "header",
                    "bits": bits,
                    "kept": float(np.mean([share[0] for share in shares])),
                    "computed": float(np.mean([np.mean(share) for share in shares])),
                }
            )
        return rows


def computed_shares(pixels: Pixels, kept: Tensor, convolutions: int) -> list[float]:
    """Share of the pixels that the last convolution computes, then the one before it, and so on."""
    shares, window = [], pixels.beneath(pixels, 1)
    for _ in range(convolutions):
        shares.append(float(kept.float().mean()))
        padded = torch.zeros(len(pixels) + ABSENT + 2, dtype=torch.bool)
        padded[: len(pixels)] = kept
        kept = padded[window].any(1)
    return shares
