"""Stands for PyGObject in tests of examples/deepstream_probe.py: a pipeline that plays a video through its probe."""


def require_version(namespace: str, version: str) -> None:
    assert (namespace, version) == ("Gst", "1.0")
