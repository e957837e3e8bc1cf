"""One camera, one face, one thread.

python opencv_loop.py face.bundle 0            the first camera
python opencv_loop.py face.bundle video.mp4    a file
python opencv_loop.py face.bundle "nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert
    ! video/x-raw,format=BGR ! appsink max-buffers=1 drop=true"    a Jetson's CSI camera, with JetPack's OpenCV
"""

import sys
import time

import cv2
import logoformer


def main(bundle: str, source: str) -> None:
    """Prints an answer every eight frames."""
    pipeline = "!" in source
    live = pipeline or source.isdigit()
    if pipeline:
        camera = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    else:
        camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not camera.isOpened():
        sys.exit(f"{source} cannot be opened; does cv2.getBuildInformation() say GStreamer: YES?")
    step_s = 1 / (camera.get(cv2.CAP_PROP_FPS) or 25.0)
    number = 0
    with logoformer.load(bundle) as runtime, runtime.stream(hop=8, color="bgr") as stream:
        while True:
            there, frame = camera.read()
            if not there:
                break
            # A live frame's time is the clock's; a file's is its place in the file.
            time_s = time.monotonic() if live else number * step_s
            number += 1
            # The face fills these videos. Elsewhere, push the detector's square: frame[top:bottom, left:right].
            result = stream.push(frame, time_s)
            if result is not None:
                print(f"{result.time_s:.2f} s  {result.label}  {result.confidence:.2f}  age {result.age_ms:.1f} ms")
    camera.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
