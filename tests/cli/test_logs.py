"""`-v` and `-q`: what goes to standard error, and what never goes to standard output."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import logoformer
import pytest
from logoformer.cli import device as cli_device
from logoformer.cli import main as cli
from logoformer.cli import terminal
from logoformer.cli.terminal import Bar
from logoformer.engine.builder import process
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.machine.log import BuildLog
from logoformer.engine.sessions.backends import cpu_backends

LEVELS = ("debug", "info", "warning", "error")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    source = Path(__file__).parents[1] / "data/bundle-v0.1"
    return Path(shutil.copytree(source, tmp_path / "face.bundle"))


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` logs a line of each level, warns, and answers."""

    def handler(a: argparse.Namespace, bar: Bar) -> int:
        logger = logging.getLogger("logoformer.engine.planted")
        for level in LEVELS:
            getattr(logger, level)("a line of %s\x1b[2J", level)
        warnings.warn("a planted warning", RuntimeWarning, stacklevel=1)
        print("answer")
        return 0

    monkeypatch.setattr(cli_device, "_doctor", handler)


@pytest.mark.parametrize(
    ("words", "shown"),
    [([], LEVELS[2:]), (["-v"], LEVELS[1:]), (["-vv"], LEVELS), (["--verbose", "-v"], LEVELS), (["-q"], LEVELS[3:])],
)
def test_levels(words: list[str], shown: tuple[str, ...], talkative: None, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", *words]) == 0
    out, err = capsys.readouterr()
    assert out == "answer\n" and "\x1b" not in err
    lines = err.splitlines()
    assert [line for line in lines if "a line of" in line] == [
        rf"{level} logoformer.engine.planted: a line of {level}\x1b[2J" for level in shown
    ]
    assert ("warning logoformer: RuntimeWarning: a planted warning" in lines) == ("warning" in shown)


def test_a_call_leaves_the_logger_and_warnings_as_they_were(talkative: None):
    logger, show = logging.getLogger("logoformer"), warnings.showwarning
    before = (logger.level, list(logger.handlers))
    assert cli.main(["doctor", "-vv"]) == 0
    assert (logger.level, list(logger.handlers)) == before and warnings.showwarning is show


def test_verbose_and_quiet_exclude_each_other(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", "-v", "-q"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_every_verb_takes_both():
    verbs = next(a for a in cli.make_parser()._actions if a.dest == "verb").choices
    for verb, parser in verbs.items():
        spellings = {option for action in parser._actions for option in action.option_strings}
        assert {"-v", "--verbose", "-q", "--quiet", "--json"} <= spellings, verb


def test_a_quiet_bar_draws_nothing(monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    monkeypatch.setattr(cli_device, "_doctor", lambda a, bar: 0)
    monkeypatch.setattr(terminal, "Bar", lambda *, quiet: seen.append(quiet) or Bar(quiet=quiet))
    for words in (["doctor"], ["doctor", "-q"], ["doctor", "--json"]):
        cli.main(words)
    assert seen == [False, True, True]


def test_the_library_is_silent_until_somebody_listens(tmp_path: Path):
    code = "import logging, logoformer; logging.getLogger('logoformer.engine').error('nobody hears this')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_loading_says_which_backend_and_how_long(bundle: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "logoformer"), logoformer.load(bundle, threads=1) as runtime:
        runtime.session("clip")
    assert {record.name.partition(".")[0] for record in caplog.records} == {"logoformer"}
    assert "tensorrt is not used: " in caplog.text and "tensorrt_rtx is not used: " in caplog.text
    assert cpu_backends()[0] in caplog.text and "(asked for: auto, verdict)" in caplog.text
    assert "session of " in caplog.text and " ms" in caplog.text


def test_verbose_json_stays_json(bundle: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["selftest", str(bundle), "-vv", "--json", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["passed"] is True and "info logoformer.engine.core: session of" in err


def test_tensorrts_lines_are_logged_escaped(caplog: pytest.LogCaptureFixture):
    log = BuildLog()
    with caplog.at_level("INFO", "logoformer"):
        log.add("VERBOSE", "dropped")
        log.add("WARNING", "a planted\x1b[2J line")
    assert caplog.messages == [r"TensorRT WARNING: a planted\x1b[2J line"]
    assert log.complaints == ("warning: a planted\x1b[2J line",)
    with caplog.at_level("DEBUG", "logoformer"):
        log.add("VERBOSE", "kept")
    assert (caplog.records[-1].levelno, caplog.messages[-1]) == (logging.DEBUG, "TensorRT VERBOSE: kept")


def test_a_builds_process_logs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    (tmp_path / "logging_child.py").write_text(
        "import json\n"
        "from multiprocessing.connection import Connection\n"
        "def serve(descriptor, parent):\n"
        "    pipe = Connection(descriptor)\n"
        "    level, *_ = json.loads(pipe.recv_bytes())['log_level'], pipe.recv_bytes(), pipe.recv_bytes()\n"
        "    for head in ({'log': ('logoformer.x', level, 'planted %s'), 'parts': 0}, {'done': 1, 'parts': 0}):\n"
        "        pipe.send_bytes(json.dumps(head).encode())\n",
        encoding="ascii",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(process, "__name__", "logging_child")  # the module that the child serves
    with caplog.at_level("DEBUG", "logoformer"):
        assert process._in_child("build", b"onnx", BuildOptions(), "g", b"")[0]["done"] == 1
    assert caplog.record_tuples == [("logoformer.x", logging.DEBUG, "planted %s")]
