"""Verdicts by precision and backend, in bundles old and new."""

from __future__ import annotations

from pathlib import Path

import pytest
from logoformer.bundle import Bundle, replace_manifest
from logoformer.bundle.verdicts import with_verdicts, without_verdicts
from logoformer.errors import RefusedError

BOTH = {"fp32", "fp16"}


def row(precision: str, backend: str, verdict: str) -> dict[str, str]:
    return {"precision": precision, "backend": backend, "verdict": verdict, "evaluator": backend}


def noting(small: Path, **changes: list[dict[str, str]]) -> Bundle:
    opened = Bundle(small)
    return replace_manifest(opened, with_verdicts(opened.manifest, "a machine", **changes))


def test_a_backend_without_a_verdict_follows_the_reference(small: Path):
    opened = Bundle(small)
    assert set(opened.accepted) == set(opened.accepted_on("onnxruntime")) == set(opened.accepted_on("openvino")) == BOTH
    refused = {**opened.precisions, "fp16": {"verdict": "refuse: use fp32", "reason": ""}}
    opened = replace_manifest(opened, {**opened.manifest, "precisions": refused})
    assert opened.accepted == opened.accepted_on("openvino") == ("fp32",)


def test_a_wrong_answer_ends_a_precision_on_that_backend_alone(small: Path):
    noted = noting(small, rows=[row("fp16", "onnxruntime", "failed"), row("fp16", "openvino", "agrees")])
    assert noted.accepted_on("onnxruntime") == ("fp32",) and set(noted.accepted_on("openvino")) == BOTH
    assert set(noted.accepted_on("tensorrt")) == BOTH, "its engines have verdicts of their own"
    assert noted.accepted == ("fp32",)


@pytest.mark.parametrize(("verdict", "runs"), [("accept", True), ("refuse: use fp32", False), ("insufficient", False)])
def test_a_backends_own_verdict_stands_before_the_references(small: Path, verdict: str, runs: bool):
    opened = Bundle(small)
    other = "refuse: use fp32" if runs else "accept"
    entry = {**opened.precisions, "fp16": {"verdict": other, "reason": ""}}
    replace_manifest(opened, {**opened.manifest, "precisions": entry})
    noted = noting(small, accuracy=[row("fp16", "openvino", verdict)])
    assert ("fp16" in noted.accepted_on("openvino")) is runs
    assert ("fp16" in noted.accepted_on("onnxruntime")) is not runs


def test_rows_of_0_1_name_no_backend_and_are_of_onnx_runtime(small: Path):
    opened = Bundle(small)
    old = {"machine": "m", "rows": [{"precision": "fp32", "verdict": "failed", "evaluator": "onnxruntime 1.24.4 CPU"}]}
    noted = replace_manifest(opened, {**opened.manifest, "verification": old})
    assert noted.accepted_on("onnxruntime") == ("fp16",) and set(noted.accepted_on("openvino")) == BOTH
    again = replace_manifest(
        noted, with_verdicts(noted.manifest, "n", rows=[row("fp32", "openvino", "verified")])
    ).manifest["verification"]
    assert [(r["machine"], r.get("backend")) for r in again["rows"]] == [("m", None), ("n", "openvino")]
    passed = with_verdicts(noted.manifest, "n", rows=[row("fp32", "onnxruntime", "verified")])
    assert replace_manifest(Bundle(small), passed).accepted_on("onnxruntime") == ("fp16", "fp32")


def test_what_a_missing_backend_said_before_stays(small: Path):
    noting(small, rows=[row("fp32", "openvino", "failed")], accuracy=[row("fp16", "openvino", "refuse")])
    noted = noting(
        small, rows=[row("fp32", "onnxruntime", "verified")], accuracy=[row("fp16", "onnxruntime", "accept")]
    )
    assert noted.accepted_on("openvino") == () and set(noted.accepted_on("onnxruntime")) == BOTH


def test_new_graphs_have_no_verdicts(small: Path):
    noted = noting(small, rows=[row("fp16", "openvino", "failed")], accuracy=[row("fp16", "onnxruntime", "refuse")])
    assert noted.accepted_on("openvino") == noted.accepted_on("onnxruntime") == ("fp32",)
    fresh = replace_manifest(noted, without_verdicts(noted.manifest, "fp16"))
    assert set(fresh.accepted_on("openvino")) == set(fresh.accepted_on("onnxruntime")) == BOTH
    assert without_verdicts({"labels": []}, "fp16") == {"labels": []}


@pytest.mark.parametrize("noted", [[], {"accuracy": {}}, {"accuracy": [{"precision": "fp16"}]}, {"rows": [[]]}])
def test_verdicts_of_another_kind_are_refused(small: Path, noted: object):
    from logoformer.bundle.sealed import seal

    changed = seal({**Bundle(small).manifest, "verification": noted})
    with pytest.raises(RefusedError):
        Bundle(small, index=changed)
