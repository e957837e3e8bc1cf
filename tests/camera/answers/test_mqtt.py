"""Answers sent to a real mosquitto: delivered, told when we are gone, back after the broker was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from logoformer.camera.answers.contract import FaceAnswer, FaceEvent, FaceFrame
from logoformer.camera.answers.mqtt import MqttSink, level_of, parse_broker
from logoformer.engine import Result
from logoformer.errors import MachineError, UsageError
from watching import wait_for

client = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed (the extra 'mqtt')")
LABELS = ("calm", "glad")


# ----------------------------------------------------------------------------------------------------------- addresses
def test_an_address_may_say_everything_or_the_host_alone():
    broker = parse_broker("mqtts://jo:p%40ss@broker.example:1234/house/kitchen")
    assert (broker.host, broker.port, broker.tls, broker.topic) == ("broker.example", 1234, True, "house/kitchen")
    assert (broker.user, broker.password) == ("jo", "p@ss")
    assert "p@ss" not in str(broker) + repr(broker) and "jo" not in str(broker)
    broker = parse_broker("mqtt://localhost")
    assert (broker.port, broker.tls, broker.topic, broker.user) == (1883, False, "logoformer", None)


@pytest.mark.parametrize(
    "text",
    ["localhost", "http://localhost", "mqtt://", "mqtt://host:x", "mqtt://host:99999", "mqtt://host/a/#", "mqtt://host/+",
     "mqtt://host/$SYS", "mqtt://host/a?b=c", "mqtt://[", ""],
)  # fmt: skip
def test_other_addresses_are_refused_and_no_password_is_repeated(text):
    with pytest.raises(UsageError) as caught:
        parse_broker(text.replace("host", "jo:secret@host") if "//host" in text else text)
    assert "secret" not in str(caught.value)


def test_a_source_is_one_level_of_a_topic():
    assert level_of("rtsp://10.0.0.5/ch 1") == "rtsp___10.0.0.5_ch_1"
    assert level_of("+/#") == "___" and level_of("") == "_"


# ------------------------------------------------------------------------------------------------------- a real broker
def answer(sequence: int, source: str = "door") -> FaceAnswer:
    result = Result("glad", 1, np.array([0.2, 0.8], np.float32), {}, 1.0, sequence / 5, sequence)
    return FaceAnswer(
        source, 3, (1, 2, 3, 4), 0.9, result, "glad", result.probabilities, LABELS, False, sequence, 0, 1000.0, 9.0
    )


SEEN = FaceFrame(np.zeros((4, 4, 3), np.uint8), "rgb", 0.0, 0, 0, 0.0, 1000.0)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Broker:
    """mosquitto on loopback."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            assert not os.environ.get("CI"), "mosquitto is missing in CI; tests/install-system.sh installs it"
            pytest.skip("mosquitto is not installed (tests/install-system.sh installs it)")
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._program = program
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([self._program, "-c", self._config], stderr=subprocess.DEVNULL)

        def answers() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)


@pytest.fixture
def broker(tmp_path):
    running = Broker(tmp_path)
    yield running
    running.kill()


class Listener:
    """Keeps what is published below a topic."""

    def __init__(self, port: int, topic: str) -> None:
        from paho.mqtt.enums import CallbackAPIVersion

        self.got: list[tuple[str, str]] = []
        self._ready = threading.Event()
        self._client = client.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda c, d, message: self.got.append((message.topic, message.payload.decode()))
        self._client.on_connect = lambda c, *_: c.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(broker):
    listening = Listener(broker.port, "kitchen/#")
    yield listening
    listening.close()


def test_answers_and_events_arrive_under_the_name_of_their_source(broker, listener):
    sink = MqttSink(parse_broker(f"mqtt://127.0.0.1:{broker.port}/kitchen"))
    for sequence in range(20):
        sink.answers(SEEN, [answer(sequence, "rtsp://cam/1"), answer(sequence, "rtsp://cam/1")])
    sink.event(FaceEvent("expression", "door", 3, 1000.0, "glad", "calm"))
    wait_for(lambda: len(listener.got) >= 42)
    sink.close()
    wait_for(lambda: ("kitchen/status", "offline") in listener.got)
    assert listener.got[0] == ("kitchen/status", "online")
    answers = [json.loads(text) for topic, text in listener.got if topic == "kitchen/rtsp___cam_1/answers"]
    assert [one["sequence"] for one in answers] == [n for n in range(20) for _ in range(2)]
    (event,) = [json.loads(text) for topic, text in listener.got if topic == "kitchen/door/events"]
    assert (event["event"], event["state"]) == ("expression", "glad")
    assert sink.dropped == 0
    sink.close()


def test_messages_of_the_schema_nv_are_nv_frames(broker, listener):
    sink = MqttSink(parse_broker(f"mqtt://127.0.0.1:{broker.port}/kitchen"), "nv", span_s=2.8, digest="c12c")
    sink.answers(SEEN, [answer(0), answer(1)])
    wait_for(lambda: len(listener.got) >= 2)
    sink.close()
    (frame,) = [json.loads(text) for topic, text in listener.got if topic == "kitchen/door/answers"]
    assert (frame["sensorId"], len(frame["objects"])) == ("door", 2)


def test_while_the_broker_is_away_nothing_waits_and_it_comes_back_by_itself(broker, listener):
    sink = MqttSink(parse_broker(f"mqtt://127.0.0.1:{broker.port}/kitchen"))
    broker.kill()
    wait_for(lambda: not sink._client.is_connected())
    began = time.monotonic()
    for sequence in range(1000):
        sink.answers(SEEN, [answer(sequence)])
    assert sink.dropped == 1000
    assert time.monotonic() - began < 60  # none of them waited for a time-out
    listener.close()
    broker.start()
    again = Listener(broker.port, "kitchen/#")
    wait_for(sink._client.is_connected)
    sink.answers(SEEN, [answer(5000)])
    wait_for(lambda: any(topic == "kitchen/door/answers" for topic, _ in again.got))
    sink.close()
    again.close()
    found = [json.loads(text)["sequence"] for topic, text in again.got if topic == "kitchen/door/answers"]
    assert found == [5000]


def test_the_broker_tells_that_we_are_gone_when_we_are_killed(broker, listener):
    code = f"""
import sys, time
from logoformer.camera.answers.mqtt import MqttSink, parse_broker
sink = MqttSink(parse_broker("mqtt://127.0.0.1:{broker.port}/kitchen"))
print("ready", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    wait_for(lambda: ("kitchen/status", "online") in listener.got)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    wait_for(lambda: ("kitchen/status", "offline") in listener.got)


def test_a_broker_that_is_not_there_is_an_error_with_advice_and_no_password():
    with pytest.raises(MachineError) as caught:
        MqttSink(parse_broker(f"mqtt://jo:secret@127.0.0.1:{free_port()}/kitchen"))
    assert "mosquitto_sub" in caught.value.next and "secret" not in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("paho")]


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(MachineError, match="paho") as caught:
        MqttSink(parse_broker("mqtt://localhost"))
    assert "logoformer[mqtt]" in caught.value.next
