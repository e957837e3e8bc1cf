"""The command line parses, calls, prints; every verb has an example that parses, and `--json` is JSON."""

import base64
import json
import re
import shlex
from pathlib import Path

import pytest
from logoformer.benchmarks.report.text_tables import table
from logoformer.cli import bundle as cli_bundle
from logoformer.cli import main as cli
from logoformer.cli.terminal import Bar


def verbs() -> dict[str, object]:
    parser = cli.make_parser()
    action = next(a for a in parser._actions if a.dest == "verb")
    return dict(action.choices)


@pytest.mark.parametrize("verb", list(verbs()))
def test_each_verb_has_help_and_an_example_that_parses(verb: str):
    text = verbs()[verb].format_help()
    example = re.search(r"example:\n  logoformer (.*)", text)
    assert example is not None and "--json" in text
    assert cli.make_parser().parse_args(shlex.split(example[1])).verb == verb


def test_inspect_json(untrained_bundle: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["inspect", str(untrained_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["preset"] == "tiny"
    assert cli.main(["inspect", str(untrained_bundle), "--tensors"]) == 0
    assert "in   clip: uint8 [1, 8, 64, 64, 3]" in capsys.readouterr().out


def test_verify_text_and_json(untrained_bundle: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["verify", str(untrained_bundle), "--no-write"]) == 0
    assert "verified" in capsys.readouterr().out
    assert cli.main(["verify", str(untrained_bundle), "--no-write", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["golden_clips"] == 8


def test_a_verb_whose_package_is_missing_names_the_extra(monkeypatch, capsys: pytest.CaptureFixture[str]):
    def without(module: str):
        def handler(a, bar):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)

        return handler

    monkeypatch.setattr(cli_bundle, "_export", without("onnx.helper"))
    assert cli.main(["export", "ckpt"]) == 6
    assert "pip install 'logoformer[export]'" in capsys.readouterr().err
    for fault in ("_export", "logoformer.export.gone"), ("_verify", "onnxruntime"):  # ours: shown whole, not dressed up
        monkeypatch.setattr(cli_bundle, fault[0], without(fault[1]))
        with pytest.raises(ModuleNotFoundError):
            cli.main([fault[0][1:], "x"])


def test_every_extra_that_a_verb_names_exists():
    named = {extra for extras in cli.EXTRAS.values() for extra in extras.split(",")}
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in named)
    assert set(cli.EXTRAS) <= set(verbs())


def test_errors_are_json_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["inspect", str(tmp_path / "nothing"), "--json"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and json.loads(err)["exit_code"] == 3 and "logoformer export" in json.loads(err)["next"]


def test_a_training_says_what_it_left_out_and_could_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import numpy as np
    from logoformer.model.checkpoint import load_checkpoint
    from PIL import Image

    for clip, frames in (("a", 9), ("b", 8), ("short", 3), ("c", 8), ("d", 8)):
        (tmp_path / "set" / clip).mkdir(parents=True)
        for number in range(frames):
            Image.fromarray(np.full((64, 64, 3), 20 * number, np.uint8)).save(tmp_path / f"set/{clip}/{number}.png")
    (tmp_path / "set/b/3.png").write_bytes(b"no picture")
    (tmp_path / "set/train.txt").write_text("a 9 0\nb 8 1\nshort 3 0\n", encoding="ascii")
    (tmp_path / "set/test.txt").write_text("c 8 0\nd 8 1\n", encoding="ascii")
    words = ["train", "--data", str(tmp_path / "set"), "-o", str(tmp_path / "x"), "--set", "steps=2", "batch=2"]
    assert cli.main([*words, "--short", "drop", "--max-damaged", "1", "--tensorboard", str(tmp_path / "events")]) == 0
    out = capsys.readouterr().out
    assert "left out: 1 clips" in out and "1 frames could not be read, their neighbours stood in: b/3.png" in out
    told = load_checkpoint(tmp_path / "x")[1]["extra"]["reading"]
    assert len({told.pop("train_list"), told.pop("test_list")}) == 2  # hashes of the lists
    assert len(base64.b64decode(told.pop("train_marks"))) == 2 * 5
    assert told == {
        "data": "set", "fold": 1, "short": "drop", "max_damaged": 1, "train_clips": 2, "test_clips": 2,
        "dropped": [1, 0], "damaged": ["b/3.png"],
    }  # fmt: skip
    assert len(list((tmp_path / "events").iterdir())) == 1


def test_init_train_evaluate_export_on_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    faces, trained = str(tmp_path / "faces"), str(tmp_path / "trained")
    assert cli.main(["synth", "-o", faces, "--identities", "5", "--side", "64"]) == 0
    assert cli.main(["train", "--data", faces, "-o", trained, "--set", "steps=3", "batch=4"]) == 0
    words = ["evaluate", trained, "--data", faces, "--order", "reversed", "-o", str(tmp_path / "found"), "--tsne"]
    assert cli.main(words) == 0
    found = json.loads((tmp_path / "found/result.json").read_text())
    assert len(found["clips"]) == found["metrics"]["clips"] and found["feature_spread"] > 0
    assert {p.name for p in (tmp_path / "found").iterdir()} == {"result.json", "confusion.svg", "features.svg"}
    assert "UAR" in capsys.readouterr().out
    out = str(tmp_path / "x.bundle")
    assert cli.main(["export", trained, "--data", faces, "-o", out, "--precisions", "fp32", "--clips", "8"]) == 3
    assert "--share-clips" in capsys.readouterr().err
    words = ["export", trained, "--data", faces, "-o", out, "--precisions", "fp32", "--clips", "8", "--share-clips"]
    assert cli.main(words) == 0
    assert cli.main(["export", trained, "-o", out, "--precisions", "fp32", "--clips", "8", "--json"]) in (0, 5)


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]):
    for words in (["fly"], ["init"], ["init", "--preset", "huge", "-o", "x"]):
        assert cli.main(words) == 2, words
    assert "'base', 'wide', 'tiny'" in capsys.readouterr().err


class Terminal:
    def __init__(self, tty: bool) -> None:
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


def test_the_bar_is_silent_at_first(monkeypatch: pytest.MonkeyPatch):
    from logoformer.cli import terminal

    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    screen, pipe = Terminal(True), Terminal(False)
    bars = [Bar(screen), Bar(pipe)]
    for second in (0.5, 1.5, 4.0, 8.0):
        now[0] = second
        for bar in bars:
            bar("train\x1b[31m", int(second), 10)
    for bar in bars:
        bar.clear()
    assert pipe.text == "" and "8/10" in screen.text and "s left" in screen.text and "\x1b" not in screen.text
    assert screen.text.endswith("\r")


def test_off_a_terminal_there_is_a_whole_line_every_half_minute(monkeypatch: pytest.MonkeyPatch):
    from logoformer.cli import terminal

    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    pipe, told_nothing = Terminal(False), Terminal(False)
    bars = [Bar(pipe), Bar(told_nothing, quiet=True)]
    for second in range(1, 91):
        now[0] = float(second)
        for bar in bars:
            bar("clips\n\x1b[31m", second, 1000)
            bar.clear()
    lines = pipe.text.splitlines()
    assert [line.split()[1] for line in lines] == ["30/1000", "60/1000", "90/1000"]
    assert lines[-1].endswith("15 min left") and not {"\r", "\x1b", "#"} & set(pipe.text)
    assert told_nothing.text == ""


def test_a_reader_of_the_progress_that_went_away_ends_no_work(monkeypatch: pytest.MonkeyPatch):
    from logoformer.cli import terminal

    class Gone(Terminal):
        def write(self, text: str) -> None:
            raise BrokenPipeError

    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    bar = Bar(Gone(False))
    now[0] = 40.0
    bar("clips", 1, 10)


def test_the_bar_gives_way_to_figures_and_a_resumed_stage_is_paced_by_what_it_does(monkeypatch: pytest.MonkeyPatch):
    from logoformer.cli import terminal

    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    screen = Terminal(True)
    bar = Bar(screen)
    for second, done in ((1.0, 9000), (11.0, 9010)):  # a step a second, whatever was done before
        now[0] = second
        bar.note("loss 0.512  validation UAR 0.412 WAR 0.523")
        bar("train", done, 10_010)
    assert screen.text.endswith("train 9010/10010  17 min left  loss 0.512  validation UAR 0.412 WAR 0.523")
    bar("evaluate", 1, 10)
    now[0] = 13.0
    bar("evaluate", 2, 10)
    assert "loss" not in screen.text.split("\r")[-1] and "[####" in screen.text.split("\r")[-1]


def test_table_escapes():
    assert "\x1b" not in table([["a"], ["\x1b[2J"]])
