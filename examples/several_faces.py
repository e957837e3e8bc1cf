"""Several faces in one picture: a stream for each, one step for all of them.

    python several_faces.py face.bundle video.mp4

Where the bundle has `frame` engines of batch 2, 4 or 8, a step computes the faces together. Here the two halves of the
picture stand for two people, the second of whom leaves and comes back; your detector and tracker go in `faces_in`.
"""

import sys

import cv2
import logoformer
import numpy as np


def faces_in(frame: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """The tracker's part: name -> crop, uint8 `[H, W, 3]`. The same person keeps the same name."""
    half = frame.shape[1] // 2
    found = {"left": frame[:, :half]}
    if not 100 <= number < 110:  # somebody walks by in front of the right one
        found["right"] = frame[:, half:]
    return found


def main(bundle: str, video: str) -> None:
    """Prints the answers of every face."""
    reader = cv2.VideoCapture(video)
    step_s = 1 / (reader.get(cv2.CAP_PROP_FPS) or 25.0)
    number, streams = 0, {}
    with logoformer.load(bundle) as runtime:
        while (read := reader.read())[0]:
            crops = faces_in(read[1], number)
            for name in set(streams) - set(crops):
                streams.pop(name).close()  # gives the face's place in the ring back
            for name in set(crops) - set(streams):
                streams[name] = runtime.stream(hop=8, color="bgr")
            pushed = {streams[name]: (crop, number * step_s) for name, crop in sorted(crops.items())}
            number += 1
            names = {stream: name for name, stream in streams.items()}
            for stream, result in runtime.step(pushed).items():
                if result is not None:
                    print(f"{names[stream]}: {result.time_s:.2f} s  {result.label}  {result.confidence:.2f}")
    reader.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
