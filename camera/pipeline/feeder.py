"""The thread of one camera: reads frames, finds the faces, hands both on."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import LogoformerError, printable
from ..answers.contract import FaceFrame
from ..sources.contract import FrameSource, SourceStatus, TimedFrame
from .counts import RateMeter
from .faces import FaceCutter

_log = logging.getLogger(__name__)
LOOP_GAP_S = 1.0  # between the last frame of a file and its first one again
FIND_FRAMES = 50  # that the mean time of finding is taken over


@dataclass(frozen=True)
class CameraSetup:
    """A camera of a watch.

    Attributes:
        source: opened; closed by the watch.
        cutter: finds and cuts its faces.
        again: opens the source anew at its end, to play a file over and over; None ends with it.
        pace: whether a file's frames come at their own times instead of as fast as they are worked off.
    """

    source: FrameSource
    cutter: FaceCutter
    again: Callable[[], FrameSource] | None = None
    pace: bool = False


class Feeder(threading.Thread):
    """Reads one source to its end.

    Args:
        number: of the camera.
        setup: its source and what finds its faces.
        hand_on: takes its number and a frame; False where nobody will take one any more.
        ended: called with its number when no frame will come any more.

    Attributes:
        failure: what ended it before its time.
    """

    def __init__(
        self,
        number: int,
        setup: CameraSetup,
        hand_on: Callable[[int, FaceFrame], bool],
        ended: Callable[[int], None],
    ) -> None:
        super().__init__(name=f"logoformer-camera-{number}", daemon=True)
        self._number, self._setup = number, setup
        self._take, self._tell_end = hand_on, ended
        self._ending = threading.Event()
        self._source = setup.source
        self.live = bool(setup.source.live)
        self.rate = RateMeter()
        self.skipped: Counter[str] = Counter()
        self.size: tuple[int, int] | None = None
        self.epoch = 0
        self.newest_s: float | None = None
        self.find_s: float | None = None
        self.failure: BaseException | None = None
        self._ended = False

    def run(self) -> None:
        try:
            for timed in self._frames():
                if self._ending.is_set() or not self._hand_on(timed):
                    break
        except BaseException as error:  # raised again where the watch is iterated
            if not self._ending.is_set():
                self.failure = error
                _log.info("camera %d ended: %s", self._number, printable(error))
        finally:
            self._ended = True
            if not self.live:
                self._source.close()
            self._tell_end(self._number)

    def end(self) -> None:
        """Asks the thread to end, also while it waits for a frame; does not wait for it.

        A live source is closed on a thread of its own: a camera that hangs holds whoever closes it. A recording is
        closed by the thread that reads it.
        """
        self._ending.set()
        if not self.live and self.ident is not None:
            return
        threading.Thread(target=self._source.close, name=f"{self.name}-end", daemon=True).start()

    @property
    def state(self) -> tuple[str, str]:
        """Its state and the reason in words, see `CameraState`."""
        if self.failure is not None:
            what = self.failure.what if isinstance(self.failure, LogoformerError) else repr(self.failure)
            return "failed", printable(what)
        status = self.status
        if status is not None and not self._ended:
            return str(status.state), printable(status.reason)
        if self._ended:
            return "ended", ""
        return ("live" if self.live else "playing"), ""

    @property
    def status(self) -> SourceStatus | None:
        """What a live source says of itself."""
        ask: Any = getattr(self._source, "status", None)
        found: SourceStatus | None = ask() if ask is not None else None
        return found

    # ------------------------------------------------------------------------------------------------ this thread only
    def _frames(self) -> Iterator[TimedFrame]:
        """The frames of the source; of a file that is looped, each time a new epoch."""
        begin_s, epochs, index = 0.0, 0, 0
        while True:
            last_s, last_epoch = begin_s, 0
            for timed in self._source:
                last_s, last_epoch = begin_s + timed.time_s, timed.epoch
                yield replace(timed, time_s=last_s, epoch=epochs + timed.epoch, index=index) if epochs else timed
                index += 1
            if self._setup.again is None or self._ending.is_set() or index == 0:
                return
            begin_s, epochs = last_s + LOOP_GAP_S, epochs + last_epoch + 1
            self._source.close()
            self._source = self._setup.again()
            if self._ending.is_set():  # closed while it opened
                self._source.close()
                return

    def _hand_on(self, timed: TimedFrame) -> bool:
        now = time.monotonic()
        if self._setup.pace and not self.live:
            self._wait_for(timed, now)
            now = time.monotonic()
        captured_s = now if timed.captured_s is None else timed.captured_s
        cut = self._setup.cutter.cut(timed)
        taken_s = time.monotonic() - now
        self.find_s = taken_s if self.find_s is None else self.find_s + (taken_s - self.find_s) / FIND_FRAMES
        seen = FaceFrame(
            picture=timed.frame,
            color=timed.color,
            time_s=timed.time_s,
            index=timed.index,
            epoch=timed.epoch,
            captured_s=captured_s,
            captured_at=time.time() - (time.monotonic() - captured_s),
            faces=cut.faces,
            gone=cut.gone,
            skipped=cut.skipped,
        )
        self.rate.count()
        self.skipped.update(_counts(cut.skipped))
        self.size = (int(timed.frame.shape[1]), int(timed.frame.shape[0]))
        self.epoch, self.newest_s = timed.epoch, captured_s
        return self._take(self._number, seen)

    def _wait_for(self, timed: TimedFrame, now: float) -> None:
        """Waits until a file's frame is due; who is late goes on from where it is."""
        if self.newest_s is None:
            self._zero_s = now - timed.time_s
        due = self._zero_s + timed.time_s
        if due > now:
            self._ending.wait(due - now)
        else:
            self._zero_s = now - timed.time_s


def _counts(skipped: Mapping[str, int]) -> dict[str, int]:
    return {reason: int(count) for reason, count in skipped.items()}
