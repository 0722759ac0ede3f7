"""The tool behind `make fuzz`: a share of its inputs, what it calls a finding, and what it has found so far."""

from __future__ import annotations

import pytest
import torch
import worker
from draw import Draw

from sbnet_perception.blocks import sparse_scatter

TARGETS = worker.all_targets()
EACH = 60


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_of_any_kind_are_computed_or_refused(name: str) -> None:
    assert list(worker.findings({name: TARGETS[name]}, 2, range(EACH), lambda _: None)) == []


def test_an_input_follows_from_its_seed_and_hostile_ones_are_among_them() -> None:
    first, again = ([Draw("7").integer(0, 9) for _ in range(2)] for _ in range(2))
    assert first == again
    numbers = [Draw(str(seed)).integer(0, 9) for seed in range(500)]
    assert 10 < sum(not 0 <= number <= 9 for number in numbers) < 100


def test_an_error_that_is_no_refusal_is_a_finding_with_its_number() -> None:
    def target(d: Draw) -> None:
        if d.chance(0.5):
            raise KeyError("a mistake")

    noted: list[int] = []
    found = list(worker.findings({"a": target, "b": lambda d: None}, 1, range(40), noted.append))
    assert noted == list(range(40)) and 2 < len(found) < 20
    assert all(finding["target"] == "a" and "KeyError" in str(finding["problem"]) for finding in found)
    assert list(worker.findings({"a": target, "b": target}, 1, range(38, 39), lambda _: None)) == [
        finding for finding in found if finding["number"] == 38
    ]


def test_a_vast_expanded_base_is_refused_before_it_is_copied() -> None:
    base = torch.zeros(1, 1, 1, 1).expand(1, 2**30 + 1, 1, 1)  # `--seed 1 --target sparse_scatter --number 557` is one
    with pytest.raises(ValueError, match="base is too large"):
        sparse_scatter(torch.ones(1, 1, 1, 1), torch.zeros(1, 3, dtype=torch.int32), base, (1, 1), (1, 1))
