"""What is said of weights that run under a mask that they were not trained under."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector, initialize
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.quantized_weights import save_steps
from sbnet_perception.detector.trained_masks import masks_of, remark_on_mask, with_own_mask, without_road
from sbnet_perception.detector.weights import WeightsError, read_metadata, save_weights, weights_path
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig


def trained_under(folder: Path, *masks: str) -> str:
    path = folder / "own.safetensors"
    save_weights(path, initialize(Detector(), 1), 0.2, (VEHICLE,), {}, masks)
    return str(path)


@pytest.mark.parametrize(
    ("trained", "asked", "told"),
    [
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "dilate( road,0.50 ) and dilate(occupancy, 0.5)", False),
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "dilate(occupancy, 0.5)", False),  # no map is at hand
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "dilate(road, 0.5)", True),
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "dilate(occupancy, 1.5)", True),
        (["dilate(road, 0.5)"], "everywhere", True),
        (["road", "occupancy"], "occupancy", False),
        (["road or occupancy"], "occupancy", True),
        (["occupancy", "everywhere"], "dilate(road, 7) or predicted", False),
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "predicted and dilate(occupancy, 0.5)", False),
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "predicted or dilate(occupancy, 0.5)", True),
        (["dilate(road, 0.5) and dilate(occupancy, 0.5)"], "predicted", True),
        ([], "everywhere", False),
    ],
)
def test_a_mask_that_weights_do_not_know_is_told_and_others_are_not(tmp_path, trained, asked, told):
    weights = trained_under(tmp_path, *trained)
    assert bool(remark_on_mask(DetectorConfig(weights=weights, mask=MaskConfig(asked)))) is told


@pytest.mark.parametrize("masks", [("magic",), (5,), ("road", ["occupancy"])])
def test_masks_that_are_none_in_a_weights_file_are_refused_in_a_line(tmp_path, masks):
    weights = trained_under(tmp_path, *masks)
    with pytest.raises(WeightsError, match=r"trained under masks that this version does not know .*; get or train it"):
        remark_on_mask(DetectorConfig(weights=weights))


@pytest.mark.parametrize(
    ("trained", "own", "mapless"),
    [
        (["dilate(road, 0.5) and predicted", "everywhere"], "dilate(road, 0.5) and predicted", "predicted"),
        (["dilate(road,.5) and (road or predicted)"], "dilate(road,.5) and (road or predicted)", "everywhere"),
        (["shadow(road and occupancy, 2)"], "shadow(road and occupancy, 2)", "shadow(occupancy, 2)"),
        (["road and occupancy and (road or external)"], "road and occupancy and (road or external)", "occupancy"),
        (["dilate(road, 1)"], "dilate(road, 1)", "everywhere"),
        ([], EXPRESSIONS["road_and_shadow"], EXPRESSIONS["shadow"]),
    ],
)
def test_weights_run_under_the_first_mask_that_they_know_unless_another_is_asked_for(tmp_path, trained, own, mapless):
    weights = trained_under(tmp_path, *trained)
    assert Pipeline(DetectorConfig(weights=weights)).config.mask.expression == own
    asked = DetectorConfig(weights=weights, mask=MaskConfig("road", min_height=0.2))
    assert with_own_mask(asked) == asked
    own_config = DetectorConfig(weights=weights, mask=MaskConfig(min_height=0.2))
    assert with_own_mask(own_config).mask == MaskConfig(own, min_height=0.2)
    assert without_road(own_config).mask == MaskConfig(mapless, min_height=0.2)


def test_all_shipped_weights_say_which_mask_is_theirs_and_those_for_any_mask_know_all():
    for name in ("compact", "paper", "compact_any_mask", "compact_predicted", "compact_sparse"):
        grid = name.partition("_")[0]
        assert masks_of(weights_path(DetectorConfig(grid=grid, weights=name)))
    wide = MaskConfig("dilate(occupancy, 3)")
    told = remark_on_mask(DetectorConfig(mask=wide))
    assert (found := re.search(r"choose weights:=(\w+)", told)) and not remark_on_mask(
        DetectorConfig(weights=found[1], mask=wide)
    )
    assert "sbnet train --mask" in remark_on_mask(DetectorConfig(grid="paper", mask=wide))


def test_shipped_weights_may_be_given_by_their_name_and_unknown_names_are_refused():
    assert weights_path(DetectorConfig(weights="compact_any_mask")).name == "compact_any_mask.safetensors"
    with pytest.raises(WeightsError, match="there is no file nowhere and none of that name is shipped"):
        weights_path(DetectorConfig(weights="nowhere"))


def test_the_remark_follows_a_mask_that_changes_between_two_frames(tmp_path):
    weights = trained_under(tmp_path, EXPRESSIONS["road_and_occupancy"])
    pipeline = Pipeline(DetectorConfig(weights=weights))
    assert not pipeline.remark
    pipeline.use(DetectorConfig(weights=weights, mask=MaskConfig("everywhere")))
    assert "own.safetensors were not trained under the mask 'everywhere'" in pipeline.remark
    assert len(pipeline(np.zeros((3, 4), np.float32)).computed) == 50


def test_quantized_weights_know_the_masks_of_those_that_they_are_made_of(tmp_path):
    weights = Path(trained_under(tmp_path, "road"))
    save_steps(weights, tmp_path / "int8.safetensors", {}, {})
    assert read_metadata(tmp_path / "int8.safetensors")["masks"] == ["road"]
