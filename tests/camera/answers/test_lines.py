"""Lines of JSON: our own fields, `nv.Frame`, and events."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from logoformer.camera.answers.contract import FaceAnswer, FaceEvent, FaceFrame, utc
from logoformer.camera.answers.lines import LineSink, json_lines, nv_frame
from logoformer.engine import Result

LABELS = ("calm", "glad", "Zürich")


def answer(face: int = 3, label: str = "glad", source: str = "door") -> FaceAnswer:
    result = Result("calm", 0, np.array([0.5, 0.4, 0.1], np.float32), {}, 1.0, 2.5, 7)
    return FaceAnswer(
        source, face, (10.04, 20.0, 110.0, 130.0), 0.91, result, label, np.array([0.3, 0.6, 0.1], np.float32), LABELS,
        True, 62, 1, 1_700_000_000.125, 12.3456,
    )  # fmt: skip


def seen() -> FaceFrame:
    return FaceFrame(np.zeros((4, 4, 3), np.uint8), "rgb", 2.5, 62, 1, 0.0, 1_700_000_000.125)


def lines_of(sink_of, *calls) -> list[dict]:
    out = io.StringIO()
    sink = sink_of(json_lines(out))
    for name, *arguments in calls:
        getattr(sink, name)(*arguments)
    sink.close()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_has_the_smoothed_label_the_raw_one_and_what_the_answer_is_of():
    (line,) = lines_of(LineSink, ("answers", seen(), [answer()]))
    assert line == {
        "source": "door", "face": 3, "time_s": 2.5, "utc": "2023-11-14T22:13:20.125Z", "label": "glad",
        "confidence": pytest.approx(0.6), "probabilities": pytest.approx({"calm": 0.3, "glad": 0.6, "Zürich": 0.1}),
        "raw_label": "calm", "box": [10.0, 20.0, 110.0, 130.0], "age_ms": 12.346, "frame": 62, "epoch": 1,
        "sequence": 7,
    }  # fmt: skip


def test_while_uncertain_the_confidence_is_that_of_the_likeliest():
    (line,) = lines_of(LineSink, ("answers", seen(), [answer(label="uncertain")]))
    assert (line["label"], line["confidence"]) == ("uncertain", pytest.approx(0.6))


def test_nv_is_one_frame_with_the_fields_that_it_requires_and_strings_in_info():
    sink = lambda write: LineSink(write, "nv", span_s=2.8, digest="c12c")  # noqa: E731
    (line,) = lines_of(sink, ("answers", seen(), [answer(3), answer(5, "uncertain")]))
    assert (line["id"], line["timestamp"], line["sensorId"]) == ("62", "2023-11-14T22:13:20.125Z", "door")
    assert isinstance(line["version"], str)
    assert [one["id"] for one in line["objects"]] == ["3", "5"]
    first = line["objects"][0]
    assert first["bbox"] == {"leftX": 10.0, "topY": 20.0, "rightX": 110.0, "bottomY": 130.0}
    assert (first["type"], first["confidence"]) == ("Face", 0.91)
    assert first["info"] == {
        "expression": "glad", "expression.confidence": "0.6000", "expression.span_s": "2.8", "model.digest": "c12c",
    }  # fmt: skip
    assert all(isinstance(value, str) for one in (line, *line["objects"]) for value in one["info"].values())
    assert {"id", "bbox", "type", "confidence"} <= set(first)


def test_with_events_changes_are_told_and_answers_are_not():
    told = FaceEvent("expression", "door", 3, 0.0, "glad", "calm")
    gone = FaceEvent("source", "door", None, 1.5, "lost", "live", "no frame for 2 s")
    lines = lines_of(
        lambda write: LineSink(write, events=True), ("answers", seen(), [answer()]), ("event", told), ("event", gone)
    )
    assert lines == [
        {"event": "expression", "source": "door", "utc": "1970-01-01T00:00:00.000Z", "face": 3, "state": "glad",
         "before": "calm"},
        {"event": "source", "source": "door", "utc": "1970-01-01T00:00:01.500Z", "state": "lost", "before": "live",
         "reason": "no frame for 2 s"},
    ]  # fmt: skip
    assert lines_of(LineSink, ("event", told)) == []


def test_nv_frames_survive_a_box_of_numpy_numbers():
    box = tuple(np.array([1.26, 2, 3, 4], np.float32))
    frame = nv_frame(seen(), [FaceAnswer(**{**vars(answer()), "box": box})], 2.8, "")
    assert json.loads(json.dumps(frame))["objects"][0]["bbox"]["leftX"] == 1.3
    assert json.loads(json.dumps(FaceAnswer(**{**vars(answer()), "box": box}).to_json()))["box"][0] == 1.3


@pytest.mark.parametrize(("at", "text"), [(0, "1970-01-01T00:00:00.000Z"), (1e9 + 0.5, "2001-09-09T01:46:40.500Z")])
def test_times_are_utc(at, text):
    assert utc(at) == text
