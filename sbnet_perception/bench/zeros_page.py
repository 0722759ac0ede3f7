"""The page of `sbnet bench zeros`: docs/bench/zeros.md, all figures of which are those of its rows."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.screen import markdown_table
from sbnet_perception.bench.zeros_product import BITS as COPY_BITS
from sbnet_perception.bench.zeros_shares import BITS, GROUPS

HEADINGS = {"element": "elements", "group8": "1 x 8", "group16": "1 x 16", "pixel": "pixels"}


def number(row: Row, key: str) -> float:
    """A figure of a row; nan where there is none."""
    value = row.get(key)
    return float("nan") if value is None else float(value)


def of_table(rows: Iterable[Row], name: str) -> list[Row]:
    return [row for row in rows if row["table"] == name]


def of_part(rows: Iterable[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def parts_of(rows: Iterable[Row]) -> list[str]:
    """In the order of the network."""
    return list(dict.fromkeys(str(row["part"]) for row in rows))


def mean(rows: Sequence[Row], key: str) -> float:
    """Over layers: by their outputs; what is missed by those that are not zero, what is found by the zeros."""
    outputs = np.array([number(row, "pixels") * number(row, "outputs") for row in rows])
    zeros = np.array([number(row, "zero_element") for row in rows])
    weights = outputs * (1.0 - zeros if key.startswith("missed") else zeros if key.startswith("found") else 1.0)
    return float(np.average([number(row, key) for row in rows], weights=weights))


def total(rows: Sequence[Row], key: str) -> float:
    """Microseconds of a frame in the layers that were timed."""
    return sum(number(row, "pixels") * number(row, key) for row in rows if "dense_us" in row)


def pays_from(sweep: Sequence[Row], with_copy: bool) -> float:
    """The share of zeros from which leaving them out takes no longer than the dense product; nan where none does."""
    shares, some, dense = (np.array([number(row, key) for row in sweep]) for key in ("zeros", "some_us", "dense_us"))
    copy = np.array([number(row, "copy_us") for row in sweep]) if with_copy else 0.0
    over = (some + copy) / dense - 1.0
    if not (over <= 0).any():
        return float("nan")
    first = int(np.argmax(over <= 0))
    pair = [first, max(first - 1, 0)]
    return float(np.interp(0.0, over[pair], shares[pair]))


def page(rows: Sequence[Row], machine: Row, plot: Path | None) -> str:
    """Markdown."""
    layers, sweep = of_table(rows, "layer"), of_table(rows, "sweep")
    (network,) = of_table(rows, "network")
    picture = [f"![Zeros by layer, and the speed over their share]({plot.name})", ""] if plot else []
    busy = max(number(row, "other_programs") for row in rows if "other_programs" in row)
    lines = [
        "# Zeros after ReLU, and what leaving them out would spare",
        "",
        f"By `sbnet bench zeros`: {rows[0]['weights']}, {rows[0]['grid']} grid, {rows[0]['frames']} frames of the "
        "simulated validation drives, mask road AND occupancy, active pixels only. The question is SeerNet's (Cao et "
        "al., CVPR 2019): a copy of a layer in a few bits says which of its outputs a ReLU will set to zero, and only "
        f"the others are computed. {machine['cpu']}, {machine['flags']}; other programs used up to {_of(busy)} of the "
        "cores, so times are CPU times of one thread, medians of alternating runs. Layer by layer: `--json`.",
        "",
        *_meaning(layers, sweep, network, of_table(rows, "accuracy")),
        "",
        *picture,
        *_zeros_table(layers),
        *_copies_table(layers),
        *_accuracy_table(of_table(rows, "accuracy")),
        *_speed_table(layers, sweep, network),
        *_header_table(of_table(rows, "header"), of_part(layers, "header 3x3")),
    ]
    return "\n".join(map(_wrapped, lines)).rstrip() + "\n"


def _wrapped(line: str) -> str:
    """Text in lines of 120 characters; headings, tables and pictures stay."""
    return line if line.startswith(("#", "|", "!")) else textwrap.fill(line, 120, break_on_hyphens=False)


def _meaning(layers: Sequence[Row], sweep: Sequence[Row], network: Row, accuracy: Sequence[Row]) -> list[str]:
    """One paragraph for users."""
    free, copy, both = (number(network, key) for key in ("free", "copy", "with_copy"))
    parts = [of_part(sweep, part) for part in parts_of(sweep)]
    for_free, paid = (_range([pays_from(part, with_copy) for part in parts]) for with_copy in (False, True))
    exact, without = (number(_found(accuracy, name), "ap70") for name in ("float32", f"{COPY_BITS} bits"))
    sentences = [
        f"**What it means.** {_of(mean(layers, 'zero_element'))} of the outputs are zero, but singly: of the groups of "
        f"8 neighbouring channels, which one vector holds, {_of(mean(layers, 'zero_group8'), 1)} are, and of whole "
        f"pixels {_of(mean(layers, 'zero_pixel'), 2)}.",
        f"A copy of {COPY_BITS} bits finds {_of(mean(layers, f'found_{COPY_BITS}'))} of the zeros and takes "
        f"{_of(mean(layers, f'missed_{COPY_BITS}'), 1)} of the other outputs for zero; with all of these set to 0, AP "
        f"at IoU 0.7 is {without:.3f}, and {exact:.3f} with none.",
        "Single outputs need another kind of product, which reads an input from memory for every multiplication, where "
        "the dense one has it in a register for several outputs. Given the true zeros for nothing it takes "
        f"{free:.2f} of the dense products' time, and pays from {for_free} zeros on, by layer.",
    ]
    if np.isnan(both):
        sentences.append("This machine has no product of small whole numbers: what the copy costs was not measured.")
    else:
        verdict = "slower than dense" if both >= 1.0 else "faster than dense"
        sentences.append(
            f"The copy takes {copy:.2f}, so both together {both:.2f}: {verdict}, before inputs are rounded and lists "
            f"are made. It would pay from {paid} zeros on."
        )
    sentences.append(
        "Nothing of this is in the detector: on CPUs sparsity pays where it comes in blocks and is known beforehand, "
        "as that of the mask is."
    )
    return [" ".join(sentences)]


def _range(shares: Sequence[float]) -> str:
    known = [share for share in shares if not np.isnan(share)]
    if not known:
        return "no share of"
    return f"{_of(min(known))} to {_of(max(known))}" + (" (in some layers never)" if len(known) < len(shares) else "")


def _found(accuracy: Sequence[Row], name: str) -> Row:
    return next(row for row in accuracy if row["zeros"] == name)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [*markdown_table(headings, rows), ""]


def _zeros_table(layers: Sequence[Row]) -> list[str]:
    """By part of the network."""
    keys = (*GROUPS, "pixel")

    def line(name: str, chosen: Sequence[Row]) -> list[str]:
        shares = [f"{100 * mean(chosen, f'zero_{key}'):.{1 if key == 'element' else 2}f}" for key in keys]
        return [name, str(len(chosen)), *shares]

    lines = [line(part, of_part(layers, part)) for part in parts_of(layers)]
    return [
        "## What is zero",
        "",
        "Percent of single outputs, of groups of neighbouring channels, and of whole pixels. A unit's last convolution "
        "is not among the layers: it adds to the shortcut.",
        "",
        *_table(["", "layers", *(HEADINGS[key] for key in keys)], [*lines, line("**all**", layers)]),
    ]


def _copies_table(layers: Sequence[Row]) -> list[str]:
    def line(name: str, chosen: Sequence[Row]) -> list[str]:
        return [name, *(f"{100 * mean(chosen, f'{key}_{bits}'):.1f}" for key in ("missed", "found") for bits in BITS)]

    lines = [line(part, of_part(layers, part)) for part in parts_of(layers)]
    headings = [f"{key} {bits} bits" for key in ("missed:", "found:") for bits in BITS]
    return [
        "## What low-bit copies know",
        "",
        "Percent of the outputs that are not zero and that the copy takes for zero (missed), and of the zeros that it "
        "finds. Weights and inputs are rounded, with a scale for each output of the weights and one for the inputs.",
        "",
        *_table(["", *headings], [*lines, line("**all**", layers)]),
    ]


def _accuracy_table(accuracy: Sequence[Row]) -> list[str]:
    names = {"shipped kernels": "no (the shipped kernels)", "float32": "no (the same in plain PyTorch)"}
    asked, classes = (list(dict.fromkeys(str(row[key]) for row in accuracy)) for key in ("asked", "class"))
    lines = []
    for zeros, entry in itertools.product(dict.fromkeys(str(row["zeros"]) for row in accuracy), classes):
        found = [row for row in accuracy if (row["zeros"], row["class"]) == (zeros, entry)]
        name = names.get(zeros, f"those of the copy of {zeros}")
        lines.append([name, entry, *(f"{number(row, 'ap50'):.3f} / {number(row, 'ap70'):.3f}" for row in found)])
    return [
        "Average precision when what the copies take for zero is set to 0 in every layer at once:",
        "",
        *_table(["set to 0", "class", *(f"AP, IoU 0.5 / 0.7, {protocol}" for protocol in asked)], lines),
    ]


def _speed_table(layers: Sequence[Row], sweep: Sequence[Row], network: Row) -> list[str]:
    def line(part: str) -> list[str]:
        chosen, swept = [row for row in of_part(layers, part) if "dense_us" in row], of_part(sweep, part)
        dense, some, copy = (total(chosen, key) for key in ("dense_us", "some_us", "copy_us"))
        points = [pays_from(swept, with_copy) for with_copy in (False, True)]
        last = chosen[-1]
        size = f"{number(last, 'terms') * number(last, 'depth'):.0f} x {number(last, 'outputs'):.0f}"
        ratios = (dense / some, copy / dense, dense / (some + copy))
        shares = [mean(chosen, "timed_zeros"), *points]
        shown = [_percent(shares[0]), *map(_ratio, ratios), _percent(shares[1]), _percent(shares[2])]
        return [part, size, *(shown if copy == copy else [*shown[:-1], ""])]

    free, copy, both = (number(network, key) for key in ("free", "copy", "with_copy"))
    timed = [row for row in layers if "dense_us" in row]
    whole = ["**all**", "", _percent(mean(timed, "timed_zeros")), *map(_ratio, (1 / free, copy, 1 / both)), "", ""]
    chosen = [1 / number(network, key) for key in ("free_chosen", "with_copy_chosen")]
    headings = ["", "inputs x outputs", "zeros, %", "times as fast, zeros for free", "the copy's time, dense = 1"]
    headings += ["times as fast with the copy", "pays from, %, for free", "pays from, %, with the copy"]
    return [
        "## What leaving them out would spare",
        "",
        "The product of single outputs (`bench/zeros_product.cpp`, a measurement only) against the shipped dense one, "
        "float32, with the true zeros of these frames, the lists of what to compute given for free: an upper bound. "
        f"Copy: a product of {COPY_BITS}-bit numbers in 16-bit sums (which wrap in 3x3 layers: the time alone counts), "
        "rounding of the inputs left out. Pays from: "
        "zeros at random places. The first layer of conv-1 adds up weights of occupied voxels and is not among them.",
        "",
        *_table(headings, [*(line(part) for part in parts_of(sweep)), whole]),
        f"Left out only in layers where that is faster: {_ratio(chosen[0])} times as fast for free, "
        f"{_ratio(chosen[1])} with the copy. These layers have {_of(number(network, 'of_all'))} of the network's "
        "multiplications, its first layer apart; the others, gathering, normalization and sums stay as they are.",
        "",
    ]


def _header_table(header: Sequence[Row], layers: Sequence[Row]) -> list[str]:
    copy = total(layers, "copy_us") / total(layers, "dense_us")
    lines, gains = [], []
    for row in header:
        left = number(row, "computed")
        cost = copy if int(number(row, "bits")) <= COPY_BITS else float("nan")
        gains.append(1.0 - left - cost)
        sides = [_ratio(1.0 - left), _ratio(cost), _ratio(gains[-1])]
        lines.append([f"{row['bits']}", f"{100 * number(row, 'kept'):.1f}", f"{100 * left:.1f}", *sides])
    part, best = number(header[0], "header_part"), max((gain for gain in gains if gain == gain), default=float("nan"))
    return [
        "## A low-bit copy of the header as a mask",
        "",
        "A copy of the header's convolutions could run first and say where the header itself has to. Its own threshold "
        "is the highest that keeps every pixel above the score threshold, chosen on the same frames: no other could do "
        "better. Each convolution must also compute what the next one reads around the kept pixels. Shares are means "
        "of the frames. The copy's cost is that of its products in "
        f"{COPY_BITS}-bit numbers (fewer bits are no faster); the header's dense products are 1.",
        "",
        *_table(["bits", "pixels kept, %", "header's work left, %", "spared", "the copy costs", "gain"], lines),
        f"The header takes {_of(part)} of the network's time in these frames"
        + ("" if np.isnan(best) else f", so the best gain is {_of(best * part, 1)} of it")
        + ". Rounding the inputs, finding the pixels, and a threshold that is safe for other frames are not in it. For "
        "everything before the header the copy comes too late: it is no source of `mask.expression`.",
        "",
    ]


def _of(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _percent(share: float) -> str:
    return "never" if np.isnan(share) else f"{100 * share:.0f}"


def _ratio(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
