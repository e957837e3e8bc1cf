"""The few names of GStreamer that the example uses. The description of a pipeline is the path of a video here."""

from __future__ import annotations

from types import SimpleNamespace

import pyds


class Element:
    def get_static_pad(self, name: str) -> Element:
        assert name == "src"
        return self

    def add_probe(self, kind: str, callback) -> None:
        assert kind == "buffer"
        self.callback = callback


class Pipeline:
    def __init__(self, video: str) -> None:
        self._video, self._element, self._states = video, Element(), []

    def get_by_name(self, name: str) -> Element:
        assert name == "faces"
        return self._element

    def set_state(self, state: str) -> None:
        self._states.append(state)

    def get_bus(self) -> Pipeline:
        return self

    def timed_pop_filtered(self, timeout: int, kinds: int) -> SimpleNamespace:
        assert self._states == ["playing"]
        for buffer in pyds.play(self._video):
            info = SimpleNamespace(get_buffer=lambda buffer=buffer: buffer)
            assert self._element.callback(None, info) == "ok"
        return SimpleNamespace(type=Gst.MessageType.EOS)


Gst = SimpleNamespace(
    init=lambda words: None,
    parse_launch=Pipeline,
    PadProbeType=SimpleNamespace(BUFFER="buffer"),
    PadProbeReturn=SimpleNamespace(OK="ok"),
    State=SimpleNamespace(PLAYING="playing", NULL="null"),
    MessageType=SimpleNamespace(EOS=1, ERROR=2),
    CLOCK_TIME_NONE=-1,
)
