"""Several cameras, a thread each, one runtime, and a consumer of the answers.

python threads.py face.bundle 0 2                    two cameras
python threads.py face.bundle one.mp4 two.mp4        two files, every frame of them
"""

import queue
import sys
import threading
import time
from concurrent.futures import Future

import cv2
import logoformer


def produce(worker: logoformer.Worker, source: str, answers: queue.Queue) -> None:
    """Reads one camera; `submit` may be called from any thread and does not wait for an answer."""
    live = source.isdigit()
    camera = cv2.VideoCapture(int(source) if live else source)
    step_s = 1 / (camera.get(cv2.CAP_PROP_FPS) or 25.0)
    number = 0

    def done(future: Future) -> None:
        if not future.cancelled() and (result := future.result()) is not None:
            answers.put((source, result))

    with worker.stream(hop=8, color="bgr") as face:
        while True:
            there, frame = camera.read()
            if not there:
                break
            time_s = time.monotonic() if live else number * step_s
            number += 1
            worker.submit(face, frame, time_s).add_done_callback(done)
    camera.release()


def consume(answers: queue.Queue) -> None:
    """Prints answers; here a program would act on them."""
    while (item := answers.get()) is not None:
        source, result = item
        print(f"{source}: {result.time_s:.2f} s  {result.label}  {result.confidence:.2f}  number {result.sequence}")


def main(bundle: str, *sources: str) -> None:
    """Runs until every source has ended."""
    answers: queue.Queue = queue.Queue()
    consumer = threading.Thread(target=consume, args=(answers,))
    consumer.start()
    # Cameras go on whatever we do: the oldest waiting frame gives way. A file can wait: every frame counts.
    drop = "oldest" if all(source.isdigit() for source in sources) else "block"
    with logoformer.load(bundle) as runtime, runtime.worker(queue=4, drop=drop) as worker:
        producers = [threading.Thread(target=produce, args=(worker, source, answers)) for source in sources]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        worker.close()  # answers what still waits
        answers.put(None)
        consumer.join()
        print(
            f"{worker.submitted} frames, {worker.answered} computed, {worker.dropped} dropped, {worker.failed} failed"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
