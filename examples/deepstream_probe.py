"""DeepStream finds and follows the faces; a probe hands each crop to a worker here. UNVERIFIED.

*Unverified*: there is no DeepStream and no card where this is tested; the probe is tested with batch metadata made by
hand, in the form that `pyds` gives it.

    python deepstream_probe.py face.bundle "uridecodebin uri=file:///faces.mp4 ! mux.sink_0 nvstreammux name=mux
      batch-size=1 width=1280 height=720 ! nvinfer config-file-path=faces.txt ! nvtracker ll-lib-file=libnvds.so
      ! nvvideoconvert ! video/x-raw(memory:NVMM),format=RGBA ! identity name=faces ! fakesink" [block]

The probe sits behind the element `faces`, where frames are RGBA; on a desktop card they must be in unified memory
(nvbuf-memory-type=3 of nvstreammux and nvvideoconvert). `block` makes a file wait for the model instead of dropping
frames. A detector of boxes gives no eyes and mouth, so crops are squares: train or calibrate on such.
"""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import logoformer
import numpy as np

UNTRACKED = 0xFFFFFFFFFFFFFFFF  # what the tracker calls an object that it does not follow
GONE_S = 2.0  # without the face in a frame of its source; then its place is free again
Key = tuple[int, int]  # source, object


def listed(node: Any, kind: Any) -> Iterator[Any]:
    """What a list of DeepStream's metadata holds; its end is None, or says StopIteration."""
    while node is not None:
        yield kind.cast(node.data)
        try:
            node = node.next
        except StopIteration:
            return


def square(frame: np.ndarray, rect: Any) -> np.ndarray | None:
    """The square around a box, cut from a frame `[H, W, 4]`; None for a box that has no pixel in it."""
    height, width = frame.shape[:2]
    side = min(max(rect.width, rect.height), width, height)
    left = min(max(rect.left + (rect.width - side) / 2, 0), width - side)
    top = min(max(rect.top + (rect.height - side) / 2, 0), height - side)
    crop = frame[round(top) : round(top + side), round(left) : round(left + side), :3]
    return np.ascontiguousarray(crop) if crop.size else None


class FaceProbe:
    """A buffer probe: a stream of the worker for each followed face of each source.

    Args:
        worker: answers.
        pyds: DeepStream's Python bindings.
        answered: called with source, object and `Result`, on the worker's thread.
        face_class: of the detector; other objects are left alone.

    Attributes:
        unserved: crops of faces for which the bundle had no place.
    """

    def __init__(
        self,
        worker: logoformer.Worker,
        pyds: ModuleType,
        answered: Callable[[int, int, logoformer.Result], None],
        face_class: int = 0,
    ) -> None:
        self._worker, self._pyds, self._answered, self._face_class = worker, pyds, answered, face_class
        self._streams: dict[Key, Any] = {}
        self._seen_s: dict[Key, float] = {}
        self.unserved = 0

    def take(self, buffer: int) -> None:
        """Takes a batch of frames.

        Args:
            buffer: address of the GstBuffer; `hash(buffer)` of the bindings.
        """
        pyds = self._pyds
        batch = pyds.gst_buffer_get_nvds_batch_meta(buffer)
        if batch is None:
            return
        for frame in listed(batch.frame_meta_list, pyds.NvDsFrameMeta):
            time_s = frame.buf_pts / 1e9
            pixels = pyds.get_nvds_buf_surface(buffer, frame.batch_id)  # a view: crops of it are copied
            for found in listed(frame.obj_meta_list, pyds.NvDsObjectMeta):
                if found.class_id == self._face_class and found.object_id != UNTRACKED:
                    self._push((frame.source_id, found.object_id), square(pixels, found.rect_params), time_s)
            self._forget(frame.source_id, time_s)

    def close(self) -> None:
        """Gives every place back."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def _push(self, key: Key, crop: np.ndarray | None, time_s: float) -> None:
        if crop is None or time_s <= self._seen_s.get(key, -1.0):  # twice in one frame
            return
        if key not in self._streams:
            try:
                self._streams[key] = self._worker.stream(hop=8, color="rgb")
            except logoformer.errors.UsageError:  # all places are taken
                self.unserved += 1
                return
        self._seen_s[key] = time_s

        def done(future: Any) -> None:
            if not future.cancelled() and (result := future.result()) is not None:
                self._answered(*key, result)

        self._worker.submit(self._streams[key], crop, time_s).add_done_callback(done)

    def _forget(self, source: int, now_s: float) -> None:
        gone = [key for key in self._streams if key[0] == source and now_s - self._seen_s[key] > GONE_S]
        for key in gone:
            self._streams.pop(key).close()
            del self._seen_s[key]


def show(source: int, face: int, result: logoformer.Result) -> None:
    """Prints an answer; here a program would act on it, or attach it to the metadata of a later frame."""
    print(f"source {source} face {face}: {result.time_s:.2f} s  {result.label}  {result.confidence:.2f}")


def main(bundle: str, description: str, drop: str = "oldest") -> None:
    """Runs the pipeline to its end."""
    with logoformer.load(bundle) as runtime, runtime.worker(queue=4, drop=drop) as worker:
        import gi  # after the runtime, see gstreamer_appsink.py

        gi.require_version("Gst", "1.0")
        import pyds
        from gi.repository import Gst

        Gst.init(None)
        pipeline = Gst.parse_launch(description)
        probe = FaceProbe(worker, pyds, show)

        def on_buffer(pad: Any, info: Any) -> Any:  # on DeepStream's thread
            if (buffer := info.get_buffer()) is not None:
                probe.take(hash(buffer))
            return Gst.PadProbeReturn.OK

        pipeline.get_by_name("faces").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, on_buffer)
        pipeline.set_state(Gst.State.PLAYING)
        ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends)
        pipeline.set_state(Gst.State.NULL)
        if message.type == Gst.MessageType.ERROR:
            sys.exit(str(message.parse_error()[0]))
        probe.close()
        worker.close()  # answers what still waits
        print(
            f"{worker.submitted} crops, {worker.answered} computed, {worker.dropped} dropped, {probe.unserved} unserved"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
