"""Frames that are already on the GPU as a torch tensor, answered without the host.

    python torch_gpu.py face.bundle video.mp4

With a card and a TensorRT engine in the bundle, the clip goes from torch's memory into the engine's on the card, by
DLPack. Without one, the same lines run on the CPU, through numpy, which shares torch's memory.
"""

import sys

import cv2
import logoformer
import numpy as np
import torch
from logoformer.clips import centre_indices


def to_input(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Resizes on the device that the frames are on.

    Args:
        frames: uint8 `[T, H, W, 3]`.
        size: S.

    Returns:
        uint8 `[T, S, S, 3]`. Training's resize is Pillow's antialiased bilinear; torch's own differs from it by one
        or two grey levels, OpenCV's and anything without `antialias` by up to thirty.
    """
    planes = frames.permute(0, 3, 1, 2).float()  # [T, 3, H, W]
    small = torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def classify(runtime: logoformer.Runtime, clip: torch.Tensor) -> np.ndarray:
    """Probabilities, float32 `[C]`, of a clip uint8 `[T, S, S, 3]` RGB; nothing is cast."""
    return runtime(clip if clip.is_cuda else clip.numpy(), color="rgb").probabilities


def main(bundle: str, video: str) -> None:
    """Answers once for a whole video."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reader, pictures = cv2.VideoCapture(video), []
    while (read := reader.read())[0]:  # a decoder on the card would leave them there
        pictures.append(torch.from_numpy(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)))
    reader.release()
    with logoformer.load(bundle) as runtime:
        picked = centre_indices(len(pictures), runtime.bundle.sampling)  # training's pattern over the whole video
        frames = torch.stack([pictures[index] for index in picked]).to(device)
        probabilities = classify(runtime, to_input(frames, runtime.bundle.image_size))
        best = int(probabilities.argmax())
        print(f"{runtime.backend}, clip on {device}: {runtime.labels[best]}  {probabilities[best]:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
