"""What `logoformer triton` writes, read back with Triton's own protobuf."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.errors import RefusedError, UsageError
from logoformer.serving import StreamClient, settings
from logoformer.serving.check import check_triton
from logoformer.serving.repository import quoted, write_models
from logoformer.serving.settings import BUNDLE, PARAMETER, Served, TritonConfig


@pytest.fixture
def model_config(triton_packages):
    """`model_config(folder)`: the configuration as Triton reads it; an unknown field is an error."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    def read(folder: Path):
        text = (folder / "config.pbtxt").read_text()
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    return read


def test_both_configurations_parse_and_say_what_was_asked_for(untrained_bundle, tmp_path, model_config, contents):
    bundle = Bundle(untrained_bundle)
    config = TritonConfig(hop=3, warmup="repeat", instances=2, idle_s=2.5, name="shop", threads=1, precision="fp32")
    done = write_models(bundle, tmp_path / "models", config)
    assert done.models == ("shop-stream", "shop-clip") and done.capacity == 2 * bundle.stream.faces
    stream, clip = (model_config(tmp_path / "models" / name) for name in done.models)
    for model, name in ((stream, "shop-stream"), (clip, "shop-clip")):
        assert (model.name, model.backend, model.instance_group[0].count) == (name, "python", 2)
        served = Served.from_text(model.parameters[PARAMETER].string_value, name)
        assert served.config == config and served.labels == bundle.labels and served.slots == bundle.stream.slots
        assert served.digest == bundle.manifest["digest"]
        np.testing.assert_array_equal(np.array(served.golden, np.float32), bundle.golden().probabilities)
        copied = contents(tmp_path / "models" / name / "1" / "face.bundle")
        own = {file: data for file, data in contents(untrained_bundle).items() if file != "CARD.md"}
        assert copied == own
        assert Bundle(tmp_path / "models" / name / "1" / "face.bundle").labels == bundle.labels
        compile((tmp_path / "models" / name / "1" / "model.py").read_text(), name, "exec")
    batching = stream.sequence_batching
    assert (
        batching.oldest.max_candidate_sequences == bundle.stream.faces
        and not batching.oldest.max_queue_delay_microseconds
    )
    assert batching.max_sequence_idle_microseconds == 2_500_000 and stream.max_batch_size == 4
    assert clip.max_batch_size == 0 and clip.model_warmup[0].batch_size == 1  # 0 would be skipped without a word
    warm = clip.model_warmup[0].inputs["clip"]
    stored = (tmp_path / "models" / "shop-clip" / "warmup" / warm.input_data_file).read_bytes()
    assert len(stored) == np.prod(warm.dims) and stored == bundle.golden().clips[0].tobytes()


def test_labels_cannot_leave_their_string(write_bundle, tmp_path, model_config):
    labels = ['calm" } }', "back\\slash\\", "Zürich"]
    bundle = write_bundle(tmp_path / "odd.bundle", "x", labels=labels)
    write_models(bundle, tmp_path / "models", TritonConfig())
    model = model_config(tmp_path / "models" / "stream")
    assert Served.from_text(model.parameters[PARAMETER].string_value, "it").labels == tuple(labels)
    assert quoted('a"\\') == '"a\\"\\\\"'


def test_nothing_is_written_from_a_changed_bundle(small, tmp_path):
    victim = next((small / "graphs").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    with pytest.raises(RefusedError, match="SHA-256"):
        write_models(Bundle(small), tmp_path / "models", TritonConfig())
    assert not (tmp_path / "models" / "stream").exists() and not (tmp_path / "models" / "clip").exists()


def test_ours_is_replaced_and_what_is_not_ours_is_left_alone(small, tmp_path, contents):
    models = tmp_path / "models"
    (models / "detector").mkdir(parents=True)
    (models / "detector" / "config.pbtxt").write_text('name: "detector"')
    write_models(Bundle(small), models, TritonConfig(hop=4))
    write_models(Bundle(small), models, TritonConfig(hop=5))
    assert sorted(path.name for path in models.iterdir()) == ["clip", "detector", "stream"]
    (models / "stream" / "config.pbtxt").write_text('name: "stream"')
    before = contents(models)
    with pytest.raises(UsageError, match="did not write"):
        write_models(Bundle(small), models, TritonConfig())
    shutil.rmtree(models / "stream")
    (models / "stream").symlink_to(models / "detector")
    with pytest.raises(UsageError, match="no folder of a model"):
        write_models(Bundle(small), models, TritonConfig())
    (models / "stream").unlink()
    assert contents(models) == {name: data for name, data in before.items() if not name.startswith("stream/")}


@pytest.mark.parametrize(
    "place",
    ["notes.txt", "2/model.py", "1/mine.py", "1/face.bundle/notes", "1/face.bundle/graphs/mine.onnx", "1/model.py"],
)
def test_a_file_of_the_user_in_a_folder_of_ours_is_left_alone(small, tmp_path, contents, place):
    models = tmp_path / "models"
    write_models(Bundle(small), models, TritonConfig(hop=4))
    path = models / "clip" / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = contents(models)
    with pytest.raises(UsageError, match=place.partition("/")[0]) as refused:
        write_models(Bundle(small), models, TritonConfig(hop=5))
    assert str(path) in refused.value.next or str(path.parent) in refused.value.next
    assert contents(models) == before


def test_a_link_in_a_folder_of_ours_is_foreign_and_a_server_s_cache_is_not(small, tmp_path):
    models = tmp_path / "models"
    write_models(Bundle(small), models, TritonConfig())
    cache = models / "stream" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"")
    write_models(Bundle(small), models, TritonConfig())
    assert not cache.exists()
    golden = models / "clip" / "warmup" / "golden"
    golden.rename(tmp_path / "golden")
    golden.symlink_to(tmp_path / "golden")
    with pytest.raises(UsageError, match="warmup/golden"):
        write_models(Bundle(small), models, TritonConfig())
    assert golden.is_symlink()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hop": 0}, {"instances": 0}, {"warmup": "never"}, {"idle_s": 0.0}, {"idle_s": float("nan")}, {"name": "a/b"},
        {"threads": -3}, {"threads": 0}, {"threads": 1025}, {"threads": 1.5}, {"idle_s": "1"},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        TritonConfig(**wrong)


@pytest.mark.parametrize("timeout_s", ["1", 0.0, -1, float("nan"), float("inf"), 10**400])
def test_wrong_timeouts_are_refused(timeout_s, triton_packages):
    with pytest.raises(UsageError, match="timeout_s is"):
        StreamClient("localhost:1", color="rgb", timeout_s=timeout_s)
    with pytest.raises(UsageError, match="timeout_s is"):
        check_triton("localhost:1", timeout_s=timeout_s)


def test_the_verb_prints_the_capacity(untrained_bundle, tmp_path, capsys, fails):
    words = ["triton", str(untrained_bundle), "-o", str(tmp_path / "models"), "--instances", "3"]
    assert cli.main([*words, "--backend", "onnxruntime"]) == 0
    assert "capacity: 3 instances x 4 faces = 12 streams at once;" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["capacity"] == 12
    fails(2, *words, "--name", "a b", names=("--name shop",))
    fails(3, "triton", tmp_path / "gone.bundle", "-o", tmp_path / "models")


def test_an_address_is_checked_before_anything_is_sent(fails, triton_packages):
    fails(2, "triton-check", "http://localhost:8001", names=("localhost:8001",))
    fails(6, "triton-check", "localhost:1", "--timeout", "0.5", names=("localhost:1",))


def test_a_model_opens_the_bundle_that_it_was_written_for_and_no_other(untrained_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "require_whole_arrays", lambda: None)  # it asks a Triton
    path = Path(shutil.copytree(untrained_bundle, tmp_path / "1" / BUNDLE))
    served = Served.of(Bundle(path), TritonConfig(backend="onnxruntime", precision="fp32", threads=1))

    def opened(served: Served):
        parameters = {PARAMETER: {"string_value": served.to_text()}}
        return settings.open_served({
            "model_config": json.dumps({"name": "stream", "parameters": parameters}), "model_version": "1",
            "model_repository": str(tmp_path), "model_instance_kind": "CPU", "model_instance_device_id": "0",
        })  # fmt: skip

    found, runtime = opened(served)
    with runtime:
        assert found == served and runtime.bundle.path == path
    with pytest.raises(RefusedError, match="not the bundle that"):
        opened(replace(served, digest="0" * 64))
