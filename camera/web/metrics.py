"""Counters of a watch for Prometheus (extra `watch`)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from ...errors import needing
from ..pipeline.board import Board
from ..pipeline.counts import AGE_BOUNDS_S

STATES = ("connecting", "live", "playing", "lost", "ended", "failed")


class WatchCollector:
    """Reads the board each time it is asked; implements `prometheus_client.registry.Collector`.

    Args:
        board: of the watch.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Any]:
        """The metrics at this moment."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        _, cameras = self._board.state()
        source = ["source"]
        frames = CounterMetricFamily("logoformer_frames", "Frames that came from the source.", labels=source)
        dropped = CounterMetricFamily("logoformer_frames_dropped", "Frames not used.", labels=[*source, "cause"])
        answers = CounterMetricFamily("logoformer_answers", "Answers given.", labels=source)
        skipped = CounterMetricFamily("logoformer_faces_skipped", "Faces not usable.", labels=[*source, "reason"])
        reconnects = CounterMetricFamily("logoformer_source_reconnects", "Connections after the first.", labels=source)
        wrong = CounterMetricFamily("logoformer_not_finite", "Rounds of answers thrown away.", labels=source)
        state = GaugeMetricFamily("logoformer_source_state", "1 for the state it is in.", labels=[*source, "state"])
        faces = GaugeMetricFamily("logoformer_faces", "Faces that are followed.", labels=source)
        unserved = GaugeMetricFamily("logoformer_faces_unserved", "Faces without a place.", labels=source)
        hop = GaugeMetricFamily("logoformer_hop_frames", "Frames from one answer to the next.", labels=source)
        age = HistogramMetricFamily("logoformer_answer_age_seconds", "From capture to answer.", labels=source)
        for camera in cameras:
            name = [camera.name]
            frames.add_metric(name, camera.frames)
            answers.add_metric(name, camera.answers)
            reconnects.add_metric(name, camera.reconnects)
            wrong.add_metric(name, camera.not_finite)
            faces.add_metric(name, len(camera.faces))
            unserved.add_metric(name, camera.unserved)
            hop.add_metric(name, camera.hop)
            for cause, count in camera.dropped.items():
                dropped.add_metric([*name, cause], count)
            for reason, count in camera.skipped.items():
                skipped.add_metric([*name, reason], count)
            for one in STATES:
                state.add_metric([*name, one], float(camera.state == one))
            if camera.age_under:
                bounds = [*(str(bound) for bound in AGE_BOUNDS_S), "+Inf"]
                buckets = list(zip(bounds, accumulate(camera.age_under), strict=True))
                age.add_metric(name, buckets, camera.age_sum_s)
        yield from (frames, dropped, answers, skipped, reconnects, wrong, state, faces, unserved, hop, age)


def prometheus_text(board: Board) -> tuple[bytes, str]:
    """The metrics as text, and its content type.

    Raises:
        MachineError: prometheus_client is not installed.
    """
    with needing("prometheus_client", "watch", "The address /metrics"):
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WatchCollector(board))
    return generate_latest(registry), CONTENT_TYPE_LATEST
