"""Streaming an untrimmed video answers as well as trimmed clips do; the last frames alone do not."""

import json
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.camera.spans import SpanScore, read_spans, score_spans
from logoformer.clips import centre_indices
from logoformer.errors import BadInputError, RefusedError
from logoformer.model.synthetic.layout import write_untrimmed
from logoformer.model.synthetic.recordings import FIRST_VIDEO_IDENTITY, SyntheticClips


@pytest.mark.slow
def test_streamed_spans_score_as_clips_do(tiny_bundle: Path, tmp_path: Path):
    people = range(FIRST_VIDEO_IDENTITY, FIRST_VIDEO_IDENTITY + 20)
    videos = [tmp_path / f"{identity}.mp4" for identity in people]
    for identity, video in zip(people, videos, strict=True):
        write_untrimmed(video, seed=0, identity=identity, rounds=2)
    with logoformer.load(tiny_bundle) as engine:
        score = score_spans(engine, videos)
        clips = SyntheticClips(0, people, 14, 96)  # the same people, trimmed; as large as the videos' pictures
        right = np.zeros((7, 2))
        for index in range(len(clips)):
            picked = centre_indices(clips.count(index), engine.bundle.sampling)
            answer = engine(clips.frames(index, picked), color="rgb")
            right[clips.label(index)] += (answer.index == clips.label(index), 1)
    clip_uar = float((right[:, 0] / right[:, 1]).mean())
    print(f"clip UAR {clip_uar:.3f}, stream {score.stream_uar:.3f}, naive {score.naive_uar:.3f}, {score.spans} spans")
    assert score.spans == 280
    assert score.stream_uar >= clip_uar - 0.03
    assert score.naive_uar < score.stream_uar - 0.2


def test_uar_is_the_mean_of_recalls():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    score = SpanScore(confusion, confusion * 0, 0)
    assert score.stream_uar == (0.75 + 0.5) / 2 and score.naive_uar == 0.0 and score.spans == 8


@pytest.mark.parametrize("content", [{"a": 1}, [{"label": "happy"}], [{"label": "joy", "end_s": 1}], [1]])
def test_foreign_spans_are_refused(tmp_path: Path, content):
    (tmp_path / "v.json").write_text(json.dumps(content))
    with pytest.raises(BadInputError, match="labelled spans"):
        read_spans(tmp_path / "v.json", ("happy", "sad"))


def test_spans_ascend_and_are_json(tmp_path: Path):
    spans = [{"label": "happy", "start_s": 0, "end_s": 2}, {"label": "sad", "start_s": 0, "end_s": 1}]
    (tmp_path / "v.json").write_text(json.dumps(spans))
    with pytest.raises(BadInputError, match="ascend"):
        read_spans(tmp_path / "v.json", ("happy", "sad"))
    (tmp_path / "v.json").write_text("[" * 100)
    with pytest.raises(RefusedError):
        read_spans(tmp_path / "v.json", ("happy", "sad"))
