"""What a field kit may not say: whose machine it is."""

from __future__ import annotations

import pytest
from logoformer.benchmarks.field.privacy import Scrubber, private_texts

SCRUB = Scrubber(
    {"/data/ada/face.bundle": "BUNDLE", "1421220012345": "<number>"}, ["ada", "orin-of-ada", "nvidia", "cpu"]
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/data/ada/face.bundle/engines holds no engine", "BUNDLE/engines holds no engine"),
        ("cannot open /home/ada/x/lib.so.10: no such file", "cannot open <path>: no such file"),
        ("~/models/a.onnx and ~ada", "<path> and ~<name>"),
        ("seen by ada on orin-of-ada", "seen by <name> on <name>"),
        ("card GPU-3b2f5d1e-0a1b-2c3d-4e5f-00112233aabb", "card <number>"),
        ("eth0 48:b0:2d:00:11:22 serial 1421220012345", "eth0 <number> serial <number>"),
    ],
)
def test_what_names_somebody_is_replaced(text, wanted):
    assert SCRUB.text(text) == wanted
    assert private_texts([wanted]) == []


@pytest.mark.parametrize(
    "text",
    [
        "uint8 clip -> float, /255 -> probabilities", "120 frames/s", "1.7.1.116", "cpu", "ada",  # a single word: ours
        "as tensorrt in /usr/lib/python3.10/dist-packages", "proc/stat",
        "sys/class/hwmon/hwmon1/{in1_input,curr1_input}",
        "NVIDIA GeForce RTX 3080", "nvidia-smi lists none", "a" * 64,
    ],
)  # fmt: skip
def test_what_names_nobody_stays(text):
    assert SCRUB.text(text) == text and private_texts({"x": [text]}) == []


def test_every_place_of_a_json_value_is_looked_at():
    value = {"/home/ada/x/y": [{"why": "in /home/ada/z/"}, 3, None, True]}
    assert len(private_texts(value)) == 2
    assert SCRUB.value(value) == {"<path>": [{"why": "in <path>"}, 3, None, True]}


def test_this_machines_own_names_are_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/grace")
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/serial-number").write_text("1424000000042\0")
    monkeypatch.setattr("socket.gethostname", lambda: "edge-box-7.example.org")
    scrub = Scrubber.here({}, tmp_path)
    said = scrub.text("serial 1424000000042 of grace on edge-box-7, in /home/grace")
    assert said == "serial <number> of <name> on <name>, in <home>"
