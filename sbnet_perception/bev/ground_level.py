"""Where the ground lies beneath the origin of a cloud's frame, from one cloud alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST, FARTHEST = 3.0, 20.0
"""Horizontal distances in metres between which points count: nearer stands the own vehicle."""
CELL = 2.0
LEAST_CELLS = 8
LEAST_SUPPORT = 0.35
"""Of clouds spoilt on purpose (cells hidden, a hundredth of the points), one in four answers with less support was
wrong by more than 0.3 m."""

_POINTS = 8_000
_SIDE = 2 * math.ceil(FARTHEST / CELL)
_LEAST_POINTS = 3
_LOW, _HIGH = 0.1, 0.9
# A cell of ground is flat: its points reach no higher. Others count for less, since what they hold may stand on it.
_FLAT, _ROUGH_WEIGHT = 0.3, 0.25
# Distance at which a cell counts half: the ground next to the vehicle is what is asked for.
_NEAR = 6.0
# Slopes that are tried, and the share of support that 100 % of slope costs.
_SLOPES = tuple(itertools.product((-0.08, 0.0, 0.08), repeat=2))
_SLOPE_COST = 1.0
_LAYER = 0.35
# Tolerances of the steps of the fit; how far it may turn away from the slope that was tried (a variance in m^2).
_TOLERANCES = (0.35, 0.25, 0.17)
_STIFFNESS = 20.0
_SUPPORTS = 0.15
# Beyond any terrain; z and the number of a cell fit one sortable float64.
_TOP = 1e5


@dataclass(frozen=True)
class GroundLevel:
    """The ground beneath the origin.

    Attributes:
        z: its height there, in metres.
        support: share (0-1) of the area around that the plane through it explains within 0.15 m; near cells count more.
            Below `LEAST_SUPPORT` the height is a guess.
        slopes: how much it rises per metre along x and along y.
    """

    z: float
    support: float
    slopes: tuple[float, float] = (0.0, 0.0)


def ground_level(points: Tensor) -> GroundLevel | None:
    """Height of the ground beneath the origin.

    Cells of 2 m between 3 and 20 m from the origin have a low percentile of z each. Of nine planes, level or sloped by
    8 % along x or y, the one counts that has the most area within a layer of 0.35 m; it is then fitted to these cells.
    Walls, roofs and reflections from below make no large plane. Any height of the origin will do; the same points give
    the same answer.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres, z up, on any device. Points that are not finite do not
            count.

    Returns:
        None where too little is seen: fewer than 8 cells with points.
    """
    x, y, z, flat = _cells(_sample(points))
    if len(z) < LEAST_CELLS:
        return None
    near = 1.0 / (1.0 + (x * x + y * y) / _NEAR**2)
    weight = near * torch.where(flat, 1.0, _ROUGH_WEIGHT)
    plane = _fitted(_largest_plane(x, y, z, weight), x, y, z, weight)
    explained = (_residual(plane, x, y, z).abs() < _SUPPORTS).double()
    along, across, z_there, support = torch.cat([plane, (near * explained).sum()[None] / near.sum()]).tolist()
    return GroundLevel(z_there, support, (along, across))


def _sample(points: Tensor) -> Tensor:
    """float64 [N, 3]: about 8,000 points of the cloud at most, those at the right distance."""
    if len(points) > _POINTS:
        # A fractional stride takes all beams alike, however many the sensor has.
        stride = len(points) // _POINTS + 0.618
        chosen = (torch.arange(int(len(points) / stride), device=points.device) * stride).long()
        points = points.index_select(0, chosen)
    xyz = points[:, :3].double()
    distance = xyz[:, 0].square() + xyz[:, 1].square()
    return xyz[(distance > NEAREST**2) & (distance < FARTHEST**2) & (xyz[:, 2].abs() < _TOP)]


def _cells(xyz: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, z float64 [C] of a low point of each cell with points, and whether the cell is flat, bool [C]."""
    column, row = ((xyz[:, axis] * (1.0 / CELL)).floor().long() + _SIDE // 2 for axis in (0, 1))
    cell = row * _SIDE + column
    order = (cell * (2.0 * _TOP) + xyz[:, 2]).argsort()
    count = torch.bincount(cell, minlength=_SIDE * _SIDE)
    start = count.cumsum(0) - count
    used = count >= _LEAST_POINTS
    count, start = count[used], start[used]
    low, high = (xyz[order[start + ((count - 1) * share).long()]] for share in (_LOW, _HIGH))
    x, y, z = low.unbind(1)
    return x, y, z, high[:, 2] - z < _FLAT


def _largest_plane(x: Tensor, y: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """float64 [3]: slopes along x and y and the height at the origin of the layer that holds the most weight."""
    slopes = torch.tensor(_SLOPES, dtype=torch.float64, device=z.device)
    height, order = (z - slopes[:, :1] * x - slopes[:, 1:] * y).sort(1)
    # Weight of the layer that begins at each cell, for each pair of slopes.
    until = torch.nn.functional.pad(weight[order].cumsum(1), (1, 0))
    end = torch.searchsorted(height, height + _LAYER, right=True)
    held = (until.gather(1, end) - until[:, :-1]) / weight.sum()
    held -= _SLOPE_COST * slopes.abs().amax(1, keepdim=True)
    best = held.argmax()
    return torch.cat([slopes[best // len(z)], height.flatten()[best, None] + _LAYER / 2])


def _fitted(plane: Tensor, x: Tensor, y: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """The plane [3] moved to the cells near it: least squares, reweighted with Tukey's biweight."""
    axes = torch.stack([x, y, torch.ones_like(x)], 1)
    stiffness = torch.tensor([_STIFFNESS, _STIFFNESS, 0.0], dtype=torch.float64, device=z.device).diag()
    for tolerance in _TOLERANCES:
        residual = _residual(plane, x, y, z)
        share = weight * (1.0 - (residual / tolerance).square()).clamp(min=0.0).square()
        if not share.sum() > 0:
            break  # two levels, and the plane between them
        share = share / share.sum()
        weighted = axes.T * share
        plane = plane + torch.linalg.solve(weighted @ axes + stiffness, weighted @ residual)
    return plane


def _residual(plane: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return z - (plane[0] * x + plane[1] * y + plane[2])
