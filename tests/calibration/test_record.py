"""A calibration set that cannot stand for the camera is refused, and what was used is written down."""

import json
from dataclasses import replace

import numpy as np
import pytest
from logoformer.bundle.files import sha256
from logoformer.calibration.choose import ChosenClips, calibration_record, check_set
from logoformer.calibration.quantize import QuantizeConfig
from logoformer.clips import Sampling
from logoformer.errors import BadInputError

LABELS = ("happy", "sad", "neutral")


def chosen(count: int = 64, classes: int = 2) -> ChosenClips:
    clips = np.random.default_rng(0).integers(0, 256, (count, 2, 4, 4, 3), dtype=np.uint8)
    ids, labels = tuple(f"{i:05d}" for i in range(count)), tuple(i % classes for i in range(count))
    return ChosenClips(clips, ids, labels, sha256(clips.tobytes()))


def test_a_good_set_passes():
    check_set(chosen())
    check_set(chosen(8), few=True)


def refused(good: ChosenClips, match: str, **more) -> BadInputError:
    with pytest.raises(BadInputError, match=match) as caught:
        check_set(good, **more)
    assert caught.value.next and caught.value.cause and caught.value.exit_code == 3
    return caught.value


def test_too_few_clips_are_refused_and_few_has_a_limit_too():
    assert "--few" in refused(chosen(63), "63 calibration clips; at least 64").next
    assert "--few" not in refused(chosen(7), "7 calibration clips; at least 8", few=True).next


def test_one_class_is_refused():
    refused(chosen(classes=1), "All 64 calibration clips are of class 0")


def test_constant_clips_are_refused_by_name():
    bad = chosen()
    bad.clips[7] = 99
    refused(bad, "1 calibration clips have one colour.*'00007'")


def test_copies_are_refused_by_name():
    bad = chosen()
    bad.clips[9] = bad.clips[3]
    refused(bad, "1 calibration clips are copies.*00009 = 00003")


def written(clips: ChosenClips) -> dict:
    return calibration_record(
        clips,
        {"a": 1.5},
        QuantizeConfig("mse", ("block0.ffn",)),
        source="faces, fold 1",
        labels=LABELS,
        preprocessing={"size": 4},
        sampling=Sampling(2, 1),
        tools={"numpy": "2"},
    )


def test_the_record_holds_names_contents_counts_and_ranges():
    clips = chosen(65)
    found = json.loads(json.dumps(written(clips), allow_nan=False))
    assert found["classes"] == {"happy": 33, "sad": 32, "neutral": 0}
    assert found["clips"][3] == {"id": "00003", "label": 1, "sha256": sha256(clips.clips[3].tobytes())}
    assert found["sha256"] == clips.sha256 and found["count"] == 65
    assert found["ranges"] == {"a": 1.5} and found["preprocessing"] == {"size": 4}
    assert found["quantize"]["method"] == "mse" and found["quantize"]["exclude"] == ["block0.ffn"]
    assert Sampling.from_json(found["sampling"]) == Sampling(2, 1)
    assert written(clips) == written(replace(clips))
