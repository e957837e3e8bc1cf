"""Sources of frames, the face in them, the stream of answers, and the video that shows both. Needs only `engine`."""
