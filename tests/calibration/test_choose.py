"""The choice of clips is stratified, seeded and recorded."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle.files import sha256
from logoformer.calibration.choose import choose, turns
from logoformer.clips import Sampling, centre_indices
from logoformer.errors import BadInputError
from logoformer.model.synthetic.recordings import SyntheticClips

SAMPLING = Sampling(8, 1)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 50), st.integers(0, 3))
def test_classes_take_turns(labels: list[int], count: int, seed: int):
    picked = turns(labels, count, seed)
    assert len(picked) == len(set(picked)) == min(count, len(labels))
    assert turns(labels, count, seed) == picked
    have = Counter(labels)
    taken = Counter(labels[index] for index in picked)
    for a in have:
        for b in have:  # no class is ahead of another that still had clips
            assert taken[a] - taken[b] <= 1 or taken[b] == have[b]


def test_the_choice_is_the_source_seen_by_the_test_pattern():
    source = SyntheticClips(0, range(3), 7, 32)
    chosen = choose(source, SAMPLING, 9, seed=4)
    assert chosen.clips.shape == (9, 8, 32, 32, 3) and chosen.sha256 == sha256(chosen.clips.tobytes())
    assert max(Counter(chosen.labels).values()) == 2
    ids = [source.clip_id(index) for index in range(len(source))]
    for clip, name, label in zip(chosen.clips, chosen.ids, chosen.labels, strict=True):
        index = ids.index(name)
        assert source.label(index) == label
        np.testing.assert_array_equal(clip, source.frames(index, centre_indices(source.count(index), SAMPLING)))
    assert choose(source, SAMPLING, 9, seed=4).sha256 == chosen.sha256
    assert choose(source, SAMPLING, 9, seed=5).ids != chosen.ids


class Copies(SyntheticClips):
    def frames(self, index, indices):
        return super().frames(0, centre_indices(40, SAMPLING))


def test_copies_and_emptiness_are_refused():
    with pytest.raises(BadInputError, match="identical"):
        choose(Copies(0, range(1), 7, 32), SAMPLING, 5)
    with pytest.raises(BadInputError, match="no clips"):
        choose(SyntheticClips(0, range(0), 7, 32), SAMPLING, 5)
