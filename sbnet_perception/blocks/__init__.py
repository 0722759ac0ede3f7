"""Sparse blocks: compute convolutions only on the active tiles of a mask (SBNet, sections 3.1-3.4)."""

from sbnet_perception.blocks.block_ops import reduce_mask, sparse_gather, sparse_scatter, sparse_scatter_
from sbnet_perception.blocks.layers import (
    ConvUnit,
    PointwiseConv2d,
    Prepared,
    ResidualUnit,
    Stage,
    UpsampleUnit,
    VoxelConvUnit,
    prepare_branches,
)
from sbnet_perception.blocks.norm import SparseBatchNorm2d
from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.blocks.sparse_map import SparseMap, Voxels
from sbnet_perception.blocks.tiles import Tiles

__all__ = [
    "ConvUnit",
    "Pixels",
    "PointwiseConv2d",
    "Prepared",
    "ResidualUnit",
    "SparseBatchNorm2d",
    "SparseMap",
    "Stage",
    "Tiles",
    "UpsampleUnit",
    "VoxelConvUnit",
    "Voxels",
    "prepare_branches",
    "reduce_mask",
    "sparse_gather",
    "sparse_scatter",
    "sparse_scatter_",
]
