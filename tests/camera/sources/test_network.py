"""Network cameras against real servers: RTSP that is killed, hung and changed, MJPEG over HTTP, reasons of failures."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cameras
import media_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.live import LiveSource
from logoformer.camera.sources.network import safe_name
from logoformer.camera.sources.open import open_source
from logoformer.errors import BadInputError, LogoformerError, MachineError, UsageError

pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> dict[tuple[int, int], Path]:
    """30 s of video at 30 frames/s, in two sizes; short enough groups for a quick start."""
    folder = tmp_path_factory.mktemp("scenes")
    made = {}
    for width, height in ((96, 64), (64, 48)):
        steps = [np.full((height, width, 3), (number * 3) % 256, np.uint8) for number in range(1200)]
        options = {"preset": "ultrafast", "bf": "0", "g": "15"}
        made[width, height] = media_files.write_video(
            folder / f"{width}.mp4", steps, "libx264", fps=30, options=options
        )
    return made


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread.name.startswith(("capture", "watchdog"))] == []
    until(lambda: set(threading.enumerate()) <= before)  # the test's own server ends with its next write


def until(condition: Callable[[], object], guard_s: float = 30.0) -> float:
    """Waits for a condition; seconds that it took. The limit guards against hanging, it is no measure."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < guard_s
        time.sleep(0.005)
    return time.monotonic() - began


class Reader(threading.Thread):
    """Takes all frames of a source."""

    def __init__(self, source: LiveSource) -> None:
        super().__init__()
        self.source, self.seen = source, []
        self.start()

    def run(self) -> None:
        for one in self.source:
            self.seen.append((one.epoch, one.time_s, one.index, one.captured_s, one.frame.shape))


@pytest.mark.slow
def test_a_camera_that_is_killed_hung_and_changed_comes_back_each_time(scenes, capsys):
    """Bar 2: five kills, two hangs, one return with another size. Times are printed, order and epochs asserted."""
    noticed, back = [], []
    with cameras.RtspServer(scenes[96, 64]) as server, open_source(server.url) as source:
        reader = Reader(source)
        until(lambda: len(reader.seen) > 5)

        def break_off(loss: Callable[[], None], reason: str, return_: Callable[[], None]) -> None:
            epoch = source.status().epoch
            loss()
            noticed.append(until(lambda: source.status().state == "lost"))
            assert reason in source.status().reason
            return_()
            back.append(until(lambda: source.status().state == "live" and source.status().epoch == epoch + 1))
            at = len(reader.seen)
            until(lambda: len(reader.seen) > at + 5)

        for _ in range(5):
            break_off(server.kill, "ended", lambda: server.start(scenes[96, 64]))
        for pause_s in (0.5, 3.5):
            break_off(server.hang, "no frame for 2 s", lambda pause_s=pause_s: (time.sleep(pause_s), server.wake()))
        assert source.status().size == (96, 64)
        break_off(server.kill, "ended", lambda: server.start(scenes[64, 48]))
        assert source.status().size == (64, 48) and source.status().reconnects == 8
        source.close()
        reader.join()
    with capsys.disabled():
        print(f"\nnoticed after {[round(s, 2) for s in noticed]} s, frames again {[round(s, 2) for s in back]} s after")
    epochs = [epoch for epoch, *_ in reader.seen]
    assert epochs == sorted(epochs) and set(epochs) == set(range(9))
    times = [time_s for _, time_s, *_ in reader.seen]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert {shape for epoch, *_, shape in reader.seen if epoch < 8} == {(64, 96, 3)}
    assert {shape for epoch, *_, shape in reader.seen if epoch == 8} == {(48, 64, 3)}
    # The time on the source's clock says how long a break was: a stream's ring forgets over it.
    for (one, early, *_), (other, late, *_) in itertools.pairwise(reader.seen):
        assert one == other or late - early > 0.05


def test_frames_of_a_camera_keep_its_own_spacing(scenes):
    with cameras.RtspServer(scenes[96, 64]) as server, open_source(server.url) as source:
        seen = list(itertools.islice(source, 20))
    steps = np.diff([one.time_s for one in seen]) / np.diff([one.index for one in seen])
    assert np.median(steps) == pytest.approx(1 / 30, abs=2e-3)
    assert source.fps == pytest.approx(30) and source.live and source.path is None and source.count is None


def test_a_camera_that_is_not_there_yet_is_waited_for(scenes):
    server = cameras.RtspServer(scenes[96, 64])
    server.kill()
    with server, open_source(server.url, patient=True) as source:
        until(lambda: "nothing listens" in source.status().reason)
        server.start(scenes[96, 64])
        assert next(iter(source)).epoch == 0


# ------------------------------------------------------------------------------------------------------------- reasons
def failure(url: str) -> LogoformerError:
    with pytest.raises(LogoformerError) as caught:
        open_source(url)
    assert "secret" not in str(caught.value) + repr(caught.value.to_json())
    assert caught.value.next or caught.value.cause
    return caught.value


def test_each_failure_of_rtsp_has_its_own_reason(scenes):
    with cameras.RtspServer(scenes[96, 64], "admin:secret") as server:
        host = f"127.0.0.1:{server.port}"
        assert "404" in failure(f"rtsp://admin:secret@{host}/wrong").what
        assert "without user" in failure(f"rtsp://{host}/face").what
        assert "refuses the user and password" in failure(f"rtsp://admin:notsecret@{host}/face").what
        with open_source(f"rtsp://admin:secret@{host}/face") as source:
            assert source.name == f"rtsp://{host}/face"
    refused = failure(f"rtsp://admin:secret@{host}/face")
    assert "nothing listens on port" in refused.what and isinstance(refused, MachineError)
    assert "no machine is known by the name" in failure("rtsp://u:secret@no-such-host.invalid/x").what
    with cameras.port_that(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        assert "not with video" in failure(f"rtsp://u:secret@127.0.0.1:{port}/x").what
    with cameras.port_that(None) as port:
        silent = failure(f"rtsp://u:secret@127.0.0.1:{port}/x")
    assert "does not answer" in silent.what


@pytest.mark.parametrize("url", ["rtsp://", "rtsp:///path", "rtsp://host:99999/x", "http://[::1/x", "rtsp://host:x/y"])
def test_a_url_without_a_machine_is_a_usage_error(url):
    with pytest.raises(UsageError, match="names no machine"):
        open_source(url)


secrets = st.text(st.sampled_from("abcXYZ0189-_.~!$&'()*+,;=:%@/#? \\"), min_size=1, max_size=12)


@given(st.sampled_from(["rtsp", "http"]), secrets, st.sampled_from(["", ":8554"]), st.sampled_from(["/", "/a/b", ""]))
def test_no_password_is_ever_shown(scheme, password, port, path):
    mark = f"hunter2{password}hunter2"
    name = safe_name(f"{scheme}://user:{mark}@10.0.0.5{port}{path}")
    assert "hunter2" not in name and name in (f"{scheme}://10.0.0.5{port}{path}", f"{scheme}://...")
    assert "hunter2" not in safe_name(f"{scheme}://10.0.0.5{port}{path}?user=a&pwd={mark}")


# ---------------------------------------------------------------------------------------------------------------- HTTP
def test_mjpeg_over_http_is_timed_by_arrival():
    frames = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(12)]
    with cameras.http_server(cameras.mjpeg(frames, 0.1)) as url, open_source(f"{url}/video?pwd=secret") as source:
        seen: list[TimedFrame] = list(itertools.islice(source, 6))
        assert source.name == f"{url}/video?..."
    span_s = seen[-1].time_s - seen[0].time_s
    # FFmpeg itself counts 40 ms a frame for such a stream.
    assert span_s == pytest.approx(seen[-1].captured_s - seen[0].captured_s, abs=1e-6)
    assert span_s > 0.06 * (seen[-1].index - seen[0].index)
    assert [round(float(one.frame.mean()) / 20) for one in seen] == sorted(
        round(float(o.frame.mean()) / 20) for o in seen
    )


def test_an_http_camera_that_closes_is_connected_to_again():
    frames = [np.full((48, 64, 3), 90, np.uint8)] * 3
    with cameras.http_server(cameras.mjpeg(frames, 0.02)) as url, open_source(f"{url}/") as source:
        epochs = [one.epoch for one in itertools.takewhile(lambda one: one.epoch < 2, source)]
    assert set(epochs) == {0, 1}


def test_each_failure_of_http_has_its_own_reason():
    def respond(handler) -> None:
        code = int(handler.path.strip("/") or 200)
        handler.send_response(code)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(b"<html>hello</html>" * 20)

    with cameras.http_server(respond) as url:
        assert "404" in failure(f"{url}/404").what
        assert "refuses" in failure(f"{url}/401").what and "refuses" in failure(f"{url}/403").what
        assert "5xx" in failure(f"{url}/503").what
        page = failure(f"{url}/200")
        assert isinstance(page, BadInputError) and "not with video" in page.what
    assert "nothing listens" in failure(url).what
