"""Limits of a configuration."""

from dataclasses import replace

import pytest
from logoformer.errors import UsageError
from logoformer.model.networks.configs import preset


@pytest.mark.parametrize("label", ["", " ", "a\nb", "\x1b[31mred", "a\x00", "x" * 101, "\u202eabc", "\ud800"])
def test_a_label_that_cannot_be_shown_is_refused(label):
    with pytest.raises(UsageError, match="label"):
        replace(preset("tiny"), labels=("happy", label))


@pytest.mark.parametrize("label", ["joie éclatante", "嬉しい", "😀", "x" * 100])
def test_a_label_of_any_language_is_taken(label):
    assert replace(preset("tiny"), labels=("happy", label)).labels == ("happy", label)
