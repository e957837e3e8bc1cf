"""Answers and events sent to an MQTT broker (extra `mqtt`)."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import MachineError, UsageError, needing, printable
from .contract import AnswerSink, FaceAnswer, FaceEvent, FaceFrame
from .lines import LineSink

_log = logging.getLogger(__name__)
PORTS = {"mqtt": 1883, "mqtts": 8883}
TOPIC = "logoformer"
WAITING = 100  # messages that may wait for a broker that is slow; more are dropped and counted
CONNECT_S, LEAVE_S = 10.0, 1.0


@dataclass(frozen=True, repr=False)
class Broker:
    """Where messages go; `repr` and `str` hide the password.

    Attributes:
        host, port: of the broker.
        tls: whether the connection is encrypted, with the system's certificates.
        topic: that all topics begin with.
        user, password: as the broker asks for them, or None.
    """

    host: str
    port: int
    tls: bool
    topic: str
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}/{self.topic}"

    __repr__ = __str__


def parse_broker(text: str) -> Broker:
    """Reads 'mqtt://USER:PASSWORD@HOST:PORT/TOPIC'; all but the host may be left out.

    Raises:
        UsageError: another scheme, no host, no port, or a topic with a wildcard.
    """
    advice = "for example: --mqtt mqtt://localhost:1883/kitchen"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"The broker's address cannot be read: {error}.", next=advice) from error
    if parts.scheme not in PORTS or not parts.hostname or "#" in text or "?" in text:
        raise UsageError("The broker's address is not of the form mqtt://HOST:PORT/TOPIC.", next=advice)
    topic = unquote(parts.path).strip("/") or TOPIC
    if re.search(r"[+#\x00-\x1f]", topic) or topic.startswith("$"):
        raise UsageError(f"{topic!r} is no topic to publish to: it holds a wildcard.", next=advice)
    return Broker(
        parts.hostname,
        PORTS[parts.scheme] if port is None else port,
        parts.scheme == "mqtts",
        topic,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


class MqttSink(AnswerSink):
    """Publishes answers to TOPIC/SOURCE/answers and events to TOPIC/SOURCE/events.

    Each is sent at least once. TOPIC/status says 'online', and 'offline' when the program is gone, however it ended;
    the broker keeps it. While the broker cannot be reached nothing waits: what came then is dropped and counted, and
    the connection comes back by itself.

    Args:
        broker: where to.
        schema: of the answers, see `LineSink`.
        span_s, digest: part of the schema 'nv'.

    Attributes:
        dropped: messages that no broker got.

    Raises:
        MachineError: paho-mqtt is not installed, or the broker cannot be reached at the start.
    """

    def __init__(self, broker: Broker, schema: str = "own", *, span_s: float = 0.0, digest: str = "") -> None:
        with needing("paho", "mqtt", "Sending answers to a broker"):
            from paho.mqtt import client
            from paho.mqtt.enums import CallbackAPIVersion
        self._broker = broker
        self.dropped = 0
        self._suffix = ""
        self._lines = LineSink(self._publish_line, schema, span_s=span_s, digest=digest)
        self._client = client.Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(WAITING)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            self._client.tls_set()
        self._client.will_set(f"{broker.topic}/status", "offline", qos=1, retain=True)
        self._answered, self._refusal = threading.Event(), ""
        self._client.on_connect = self._on_connect
        self._client.connect_timeout = CONNECT_S
        try:
            self._client.connect(broker.host, broker.port)
        except (OSError, ValueError) as error:
            raise self._unreachable(str(error)) from error
        self._client.loop_start()
        if not self._answered.wait(CONNECT_S) or self._refusal:
            self._client.loop_stop()
            raise self._unreachable(self._refusal or f"no answer within {CONNECT_S:g} s")

    def answers(self, seen: FaceFrame, given: Sequence[FaceAnswer]) -> None:
        self._suffix = f"{level_of(given[0].source)}/answers"
        self._lines.answers(seen, given)

    def event(self, event: FaceEvent) -> None:
        self._suffix = f"{level_of(event.source)}/events"
        self._publish_line(event.to_json())

    def close(self) -> None:
        if self._client.is_connected():
            last = self._client.publish(f"{self._broker.topic}/status", "offline", qos=1, retain=True)
            try:
                last.wait_for_publish(LEAVE_S)
            except (RuntimeError, ValueError) as error:  # the connection broke just now: the broker says it for us
                _log.info("no farewell to %s: %s", self._broker, error)
        self._client.disconnect()
        self._client.loop_stop()

    def _publish_line(self, line: Mapping[str, Any]) -> None:
        if not self._client.is_connected():
            self.dropped += 1
            return
        sent = self._client.publish(f"{self._broker.topic}/{self._suffix}", json.dumps(line, allow_nan=False), qos=1)
        self.dropped += sent.rc != 0

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        """Runs on the client's own thread, after every connection."""
        if reason.is_failure:
            self._refusal = str(reason)
        else:
            client.publish(f"{self._broker.topic}/status", "online", qos=1, retain=True)
        self._answered.set()

    def _unreachable(self, why: str) -> MachineError:
        return MachineError(
            f"The broker {self._broker} cannot be used: {printable(why)}.",
            cause="it does not run, another port, or a user that it does not let in",
            next=f"mosquitto_sub -h {self._broker.host} -p {self._broker.port} -t '{self._broker.topic}/#' -v",
        )


def level_of(name: str) -> str:
    """A source's name as one level of a topic, without separators and wildcards.

    >>> level_of("rtsp://camera/1")
    'rtsp___camera_1'
    """
    return re.sub(r"[/+#:\s\x00-\x1f]", "_", name) or "_"
