"""The way of a frame: source, faces, crops, streams, answers; bounded in age under overload."""
