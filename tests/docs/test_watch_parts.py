"""The example of `docs/watch.md` that puts the parts together: faces that come, may be others, and go."""

import contextlib
import re
from pathlib import Path
from types import SimpleNamespace

import logoformer
import numpy as np
from logoformer.camera.answers import smoothing
from logoformer.camera.faces import crop, finder
from watching import ScriptedRuntime

PAGE = Path(__file__).parents[2] / "docs" / "watch.md"


class Finder:
    """Sees face 1 in every frame and face 2 in the first six, of whom nobody knows who he is in the fourth."""

    def find(self, frame, color, time_s):
        number = round(25 * time_s)
        numbers = (1, 2) if number < 6 else (1,)
        faces = tuple(SimpleNamespace(id=one, reset=number == 3 and one == 2) for one in numbers)
        return SimpleNamespace(faces=faces, gone=(2,) if number == 6 else ())


def test_each_face_has_a_stream_a_smoother_and_a_label_of_its_own(monkeypatch, capsys):
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (block,) = (text for text in found if "HeldLabel" in text)
    runtime, smoothers = ScriptedRuntime(), []

    class Smoother(smoothing.Smoother):
        def __init__(self, smooth_s):
            super().__init__(smooth_s)
            self.added, self.resets = 0, 0
            smoothers.append(self)

        def add(self, probabilities, time_s):
            self.added += 1
            return super().add(probabilities, time_s)

        def reset(self):
            self.resets += 1
            super().reset()

    monkeypatch.setattr(logoformer, "load", lambda _: contextlib.nullcontext(runtime))
    monkeypatch.setattr(finder, "FaceFinder", Finder)
    monkeypatch.setattr(smoothing, "Smoother", Smoother)
    monkeypatch.setattr(crop, "face_crop", lambda frame, face, *_: np.full((8, 8, 3), face.id, np.uint8))
    exec(block, {})
    first, second = runtime.opened
    assert (first.closed, second.closed) == (False, True) and first.hop == 4
    assert [len(stream.crops) for stream in (first, second)] == [10, 3]  # since it may have been somebody else
    assert [(one.added, one.resets) for one in smoothers] == [(2, 0), (0, 1)]
    assert capsys.readouterr().out.split() == ["1", "sad", "1", "sad"]
