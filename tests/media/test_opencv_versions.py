"""Rotated phone videos by the OpenCV releases that pip gives for numpy 1 and 2, each in a venv of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import logoformer
import media_files
import numpy as np
import pytest

pytestmark = pytest.mark.slow
VENVS = Path(__file__).parents[2] / "build" / "venvs"
# 4.8 is JetPack 6's; 4.11 is what numpy 1 makes pip choose, and the one that does not rotate by itself.
RELEASES = {"4.8.1.78": "numpy<2", "4.11.0.86": "numpy<2", "4.14.0.94": "numpy>=2"}
SCRIPT = """
import json, sys
import numpy as np
from logoformer.media import video
assert video.importable("cv2") and not video.importable("av")
found = {}
for path in sys.argv[1:]:
    with video.open_video(path, 25.0) as reader:
        frames = [frame.rgb() for frame in reader]
    found[path] = [len(frames), np.asarray(frames[0])[4::8, 4::8].tolist()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module", params=RELEASES)
def python(request) -> Path:
    """The interpreter of a venv with one release of OpenCV, made once and kept."""
    if sys.version_info >= (3, 13) and request.param.startswith("4.8"):
        pytest.skip("OpenCV 4.8 and its numpy have no wheels for this Python")
    venv = VENVS / f"opencv-{request.param}"
    interpreter, done = venv / "bin" / "python", venv / "complete"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        words = [str(interpreter), "-m", "pip", "install", "-q", RELEASES[request.param], "pillow"]
        installed = subprocess.run(
            [*words, f"opencv-python-headless=={request.param}"], capture_output=True, check=False
        )
        if installed.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(installed.stderr.decode()[-300:])
        done.touch()
    return interpreter


def test_a_phones_rotation_is_obeyed_and_a_name_of_any_bytes_is_read(python, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    picture = media_files.quarters(48, 64)
    paths = {}
    for rotation in (0, 90, 180, 270):
        path = tmp_path / os.fsdecode(b"r\xe9%d.mp4" % rotation)
        media_files.write_video(path, [picture] * 3, "libx264", rotation=rotation, container="mp4")
        paths[rotation] = path
    packages = tmp_path / "packages"  # the folder of a clone may have any name; the package has one
    packages.mkdir()
    (packages / "logoformer").symlink_to(Path(logoformer.__file__).parent)
    env = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "PYTHONIOENCODING": "utf-8:surrogateescape",
    }
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    words = [str(python), "-c", SCRIPT, *map(str, paths.values())]
    done = subprocess.run(words, capture_output=True, check=False, env=env, timeout=120)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()[-2000:]
    found = json.loads(done.stdout)
    for rotation, path in paths.items():
        count, corners = found[str(path)]
        expected = np.rot90(picture, rotation // 90)[4::8, 4::8].astype(int)
        assert count == 3 and np.array(corners).shape == expected.shape
        assert np.abs(np.array(corners) - expected).mean() < 12
