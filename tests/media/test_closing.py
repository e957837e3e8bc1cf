"""A file that is given back while it is read: nothing is lost but the rest, and no process ends by a signal."""

from __future__ import annotations

import subprocess
import sys

import media_files
import pytest

SCRIPT = """
import sys, threading
from logoformer.media.{module} import {reader} as Reader
from logoformer.media.files import open_media
from pathlib import Path

path = Path(sys.argv[1])

def opened():
    return Reader(path, open_media(path, follow_links=True), 25.0)

reader = opened()
frames = iter(reader)
first = next(frames)
reader.close()
assert list(frames) == []  # the rest is gone, and that is no damage
for turn in range(60):
    reader, seen = opened(), threading.Event()
    def read():
        for frame in reader:
            frame.rgb() if turn % 2 else None
            seen.set()
    thread = threading.Thread(target=read)
    thread.start()
    seen.wait(10)
    reader.close()
    thread.join(10)
    assert not thread.is_alive()
print("whole")
"""


@pytest.mark.parametrize(("module", "reader"), [("pyav", "AvReader"), ("opencv", "CvReader")])
def test_a_file_may_be_given_back_while_another_thread_reads_it(module, reader, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    path = tmp_path / "video.mp4"
    media_files.write_video(path, [media_files.quarters(240, 320)] * 100, "libx264", container="mp4")
    words = [sys.executable, "-c", SCRIPT.format(module=module, reader=reader), str(path)]
    done = subprocess.run(words, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"whole\n"), done.stderr.decode()[-2000:]
