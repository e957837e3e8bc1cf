"""A GStreamer pipeline whose appsink calls us from a thread of its own.

    python gstreamer_appsink.py face.bundle v4l2src
    python gstreamer_appsink.py face.bundle "nvarguscamerasrc ! nvvidconv"
    python gstreamer_appsink.py face.bundle "videotestsrc num-buffers=200 ! video/x-raw,framerate=25/1"

Needs the system's Python bindings (Debian: python3-gi, gir1.2-gstreamer-1.0, gstreamer1.0-plugins-base): make the
virtual environment with --system-site-packages.
"""

import sys
from concurrent.futures import Future

import logoformer
import numpy as np


def main(bundle: str, source: str) -> None:
    """Prints answers until the source ends."""
    with logoformer.load(bundle) as runtime, runtime.worker(queue=2, drop="oldest") as worker:
        # GStreamer after the runtime: it loads Debian's libunwind, and with that in front an exception inside OpenVINO,
        # which it throws and catches as it starts, ends the process.
        import gi

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst

        Gst.init(None)
        # drop=true: a callback that is late meets the newest frame, not a queue of old ones.
        sink = "appsink name=sink emit-signals=true max-buffers=1 drop=true"
        pipeline = Gst.parse_launch(f"{source} ! videoconvert ! video/x-raw,format=RGB ! {sink}")
        face = worker.stream(hop=8, color="rgb")

        def show(done: Future) -> None:  # on the worker's thread: keep it short
            if not done.cancelled() and (result := done.result()) is not None:
                print(f"{result.time_s:.2f} s  {result.label}  {result.confidence:.2f}  age {result.age_ms:.1f} ms")

        def on_sample(appsink: Gst.Element) -> Gst.FlowReturn:  # on GStreamer's thread
            sample = appsink.emit("pull-sample")
            shape = sample.get_caps().get_structure(0)
            width, height = shape.get_value("width"), shape.get_value("height")
            buffer = sample.get_buffer()
            _, memory = buffer.map(Gst.MapFlags.READ)
            try:
                rows = np.frombuffer(memory.data, np.uint8).reshape(height, -1)  # rows are padded to 4 bytes
                frame = rows[:, : width * 3].reshape(height, width, 3)
                worker.submit(face, frame, buffer.pts / Gst.SECOND).add_done_callback(show)  # copies the frame
            finally:
                buffer.unmap(memory)
            return Gst.FlowReturn.OK

        pipeline.get_by_name("sink").connect("new-sample", on_sample)
        pipeline.set_state(Gst.State.PLAYING)
        ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends)
        pipeline.set_state(Gst.State.NULL)
        if message.type == Gst.MessageType.ERROR:
            sys.exit(str(message.parse_error()[0]))
        worker.close()  # answers what still waits
        print(f"{worker.submitted} frames, {worker.answered} computed, {worker.dropped} dropped")


if __name__ == "__main__":
    main(*sys.argv[1:])
