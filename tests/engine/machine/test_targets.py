"""Names of targets, GPUs and folders."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.engine.machine.targets import RTX_SMS, TARGETS, check_sms, check_target, default_target, folder_name
from logoformer.errors import UsageError


def test_sms_are_those_of_the_module(rtx: object) -> None:
    members = rtx.ComputeCapability.__members__  # type: ignore[attr-defined]
    assert {name.lower() for name in members} - {"none", "current"} == set(RTX_SMS)


def test_good_names_pass() -> None:
    assert [check_target(name) for name in TARGETS] == list(TARGETS)
    assert check_sms(RTX_SMS) == RTX_SMS


@pytest.mark.parametrize("sms", [("sm87",), ("SM86",), ("sm86", "sm86"), ("",)])
def test_bad_names_are_usage_errors(sms: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        check_sms(sms)


@pytest.mark.parametrize(
    ("jetson", "sm", "target"),
    [(True, "sm87", "tensorrt"), (True, None, "tensorrt"), (True, "sm110", "tensorrt"), (False, "sm90", "tensorrt"),
     (False, "sm89", "rtx"), (False, "sm121", "rtx"), (False, None, "rtx")],
)  # fmt: skip
def test_what_is_built_for_where_nobody_says_it(jetson: bool, sm: str | None, target: str) -> None:
    assert default_target(jetson, sm) == target


def test_a_folder_name_says_what_is_in_it() -> None:
    assert folder_name("rtx", "1.7.1.116", RTX_SMS) == "rtx1.7.1-sm75+sm80+sm86+sm89+sm120+sm121"
    with pytest.raises(UsageError):
        folder_name("cuda", "1", ())


@given(st.sampled_from(TARGETS), st.text(max_size=20), st.lists(st.text(max_size=8), max_size=7))
def test_a_folder_name_is_safe_on_any_file_system(target: str, version: str, sms: list[str]) -> None:
    assert re.fullmatch(r"[a-z0-9.+-]+", folder_name(target, version, sms), re.ASCII)
