"""A connection to a Triton over gRPC, what it serves, and its errors (extra `triton`)."""

from __future__ import annotations

import re
from typing import Any

from .. import errors
from ..errors import BadInputError, LogoformerError, MachineError, RefusedError, UsageError, command, needing, printable
from .sequences import NOT_HELD
from .settings import PARAMETER, Served

# A server that was started again is found within half a second, not after gRPC's two minutes.
_CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
)
LONGEST_S = 1e9  # that gRPC is asked to wait
# Ours as a model's process writes them (`stream_model.triton_error`).
_OURS = re.compile(r"\b([A-Z]\w+Error): (.*)", re.DOTALL)


def connect(url: str) -> Any:
    """A client of tritonclient; nothing is sent yet.

    Args:
        url: host and port of gRPC, such as 'localhost:8001'.

    Raises:
        UsageError: another form.
        MachineError: tritonclient is not installed.
    """
    host, _, port = url.rpartition(":")
    if not host or not port.isdigit() or "/" in url:
        raise UsageError(f"{url!r} is no address of a Triton.", next="give host and gRPC port: localhost:8001")
    with needing("tritonclient", "triton", "Talking to a Triton"):
        import tritonclient.grpc as triton
    return triton.InferenceServerClient(url, channel_args=list(_CHANNEL))


def read_served(client: Any, model: str, timeout_s: float) -> Served:
    """What a model says of its bundle.

    Raises:
        RefusedError: `logoformer triton` did not write that model.
        InferenceServerException: nobody answers, or there is no such model.
    """
    config = client.get_model_config(model, client_timeout=timeout_s).config
    if PARAMETER not in config.parameters:
        raise RefusedError(
            f"The model {printable(model)!r} was not written by logoformer triton.",
            next=command("logoformer", "triton", "BUNDLE", "-o", "MODELS"),
        )
    return Served.from_text(config.parameters[PARAMETER].string_value, f"config.pbtxt of {model}")


def error_of(raised: Any) -> LogoformerError | None:
    """The error of ours that a request ended with, or None.

    None means that the server or the way to it failed, or that the sequence is not held any more: what helps is to open
    it again.

    Args:
        raised: `InferenceServerException`.
    """
    text, status = str(raised.message() or ""), str(raised.status() or "")
    if NOT_HELD in text or "START flag" in text:
        return None
    found = _OURS.search(text)
    cls = getattr(errors, found[1], None) if found is not None else None
    if found is not None and isinstance(cls, type) and issubclass(cls, LogoformerError):
        what, _, following = found[2].partition("\nNext: ")
        what, _, cause = what.partition("\nLikely cause: ")
        error: LogoformerError = cls(what, cause=cause, next=following.split("\n")[0])
        return None if isinstance(error, errors.DeviceLostError) else error
    if "INVALID_ARGUMENT" in status:
        return BadInputError(
            f"Triton refused the request: {printable(text)}", next=command("logoformer", "triton-check", "URL")
        )
    return None


def no_answer(url: str, model: str, timeout_s: float, raised: object) -> MachineError:
    """The error for a server that gave no answer in time."""
    return MachineError(
        f"{printable(model)} at {url} gave no answer within {timeout_s:g} s: {printable(raised, 300)}",
        cause="the server is starting or gone, the model's process ended, or all of its sequences are taken",
        next=command("logoformer", "triton-check", url),
    )
