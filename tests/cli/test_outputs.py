"""What `-o` replaces: an older output of the same verb, and never a file of somebody else or weights, unasked."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from logoformer.camera.answers.video import OverlaySink
from logoformer.cli.completion import takes_path
from logoformer.cli.main import make_parser
from logoformer.cli.outputs import KNOWN, TELL_THEMSELVES, check_output
from logoformer.errors import BadInputError, MachineError, UsageError
from logoformer.media.marks import MP4_END

MINE = b"holiday, 2019"
CALLS = {  # the call without -o, and the file that it writes
    "run": ("run b.bundle v.mp4", "x.mp4"),
    "watch": ("watch b.bundle v.mp4", "x.mp4"),
    "synth video": ("synth --kind video", "x.mp4"),
    "synth scene": ("synth --kind scene", "x.mp4"),
    "bench": ("bench b.bundle", "x.json"),
    "fieldtest": ("fieldtest b.bundle", "x.zip"),
    "inspect": ("inspect --complexity", "x.svg"),
}


def verbs() -> dict[str, argparse.ArgumentParser]:
    return dict(next(a for a in make_parser()._actions if a.dest == "verb").choices)


def passes(line: str) -> bool:
    words = shlex.split(line)
    try:
        check_output(make_parser().parse_args(words), words)
    except BadInputError:
        return False
    return True


FOLDERS = {  # and what replaces files by rules of its own
    "export": ("export c", "x.bundle"),
    "label": ("label b.bundle v.mp4", "x.jsonl"),
    "triton": ("triton b.bundle", "models"),
    "demo": ("demo", "demo"),
    "init": ("init", "weights"),
    "train": ("train --data faces", "weights"),
    "import": ("import w.pth", "weights"),
    "bench, replacing": ("bench b.bundle --overwrite", "x.json"),
}


@pytest.mark.parametrize("name", CALLS | FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(name, tmp_path, monkeypatch):
    line, file = (CALLS | FOLDERS)[name]
    (tmp_path / "mine").write_bytes(MINE)
    with pytest.raises(MachineError, match="Not a directory") as caught:
        passes(f"{line} -o {tmp_path}/mine/sub/{file}")
    assert "free space" not in caught.value.next
    assert passes(f"{line} -o {tmp_path}/new/sub/{file}") and not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(MachineError, match="Permission denied"):
        passes(f"{line} -o {tmp_path}/new/sub/{file}")


@pytest.mark.parametrize("out", ["", ".", "./", "/", "..", "a/.."])
@pytest.mark.parametrize("line", ["init", "train --data faces", "import w.pth", "export c", "synth --kind video"])
def test_a_folder_that_one_is_in_is_no_output(line, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in ("", " --overwrite")[: 1 if line.startswith("export") else 2]:
        with pytest.raises(UsageError) as caught:
            passes(f"{line} -o '{out}'{more}")
        assert caught.value.next


@pytest.mark.parametrize(
    "line", ["bench b.bundle", "evaluate c --data faces", "inspect --complexity", "triton b.bundle"]
)
def test_an_empty_name_is_no_output(line):
    with pytest.raises(UsageError, match="empty"):
        passes(f"{line} -o ''")


def arguments() -> list[tuple[str, str]]:
    """Every argument of every verb that is a path, as a call in which it alone is empty."""
    found = []
    for verb, parser in verbs().items():
        named = [a for a in parser._actions if a.nargs != 0 and a.choices is None]
        needed = {a.dest: [*a.option_strings[-1:], "x.mp4"] for a in named if a.required}
        for action in named:
            if takes_path(action):
                given = {**needed, action.dest: [*action.option_strings[-1:], ""]}
                words = [verb, *(word for argument in given.values() for word in argument)]
                found.append((shlex.join(words), (action.option_strings or [action.dest])[-1]))
    return found


@pytest.mark.parametrize(("line", "name"), arguments())
def test_an_empty_path_is_refused_for_every_verb(line, name, fails):
    text = fails(2, *shlex.split(line), names=(f"The name of {name} is empty", "not set"))
    assert text.count("\n") <= 3


def test_an_empty_name_among_sources_is_refused_and_a_camera_s_number_is_none(fails, tmp_path):
    fails(2, "label", "b.bundle", "a.mp4", "", "-o", tmp_path / "a.jsonl", names=("The name of sources is empty",))
    assert passes("run b.bundle 0") and passes(f"label b.bundle 0 -o {tmp_path}/a.jsonl")


@pytest.mark.parametrize("call", ["bench", "fieldtest", "synth video"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_any_work(call, tmp_path):
    line, name = CALLS[call]
    (tmp_path / name).mkdir()
    for more in ("", " --overwrite"):
        with pytest.raises(UsageError, match="is a folder"):
            passes(f"{line} -o {tmp_path / name}{more}")


def test_a_page_without_its_markers_is_refused_before_any_work(fails, tmp_path):
    (tmp_path / "page.md").write_text("nothing")
    for page, why in (("page.md", "markers"), ("none.md", "cannot be read")):
        fails(3, "bench", tmp_path / "no.bundle", "--readme", tmp_path / page, names=(page, why))


@pytest.mark.parametrize("line", ["init", "train --data faces", "import w.pth", "export c"])
def test_a_mount_point_is_not_replaced(line, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    assert not passes(f"{line} -o {tmp_path}/volume") and passes(f"{line} -o {tmp_path}/volume/weights")


@pytest.mark.parametrize("verb", ["triton b.bundle", "demo"])
def test_what_writes_into_a_folder_needs_only_that_one(verb, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name == "models")
    assert passes(f"{verb} -o {tmp_path}/models")


@pytest.mark.parametrize("target", ["full", "empty", "nothing"])
def test_a_link_in_the_place_of_a_checkpoint_is_called_a_link(target, fails, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_bytes(MINE)
    (tmp_path / "link").symlink_to(target)
    assert "is not a checkpoint" not in fails(3, "init", "-o", tmp_path / "link", names=("is a link",))
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "line",
    [
        "quantize B --data none", "quantize B --data none --sensitivity S", "verify B --accuracy --data none",
        "train --qat B --data none", "export CKPT -o B",
    ],
)  # fmt: skip
def test_a_bundle_that_cannot_be_written_is_refused_before_any_work(
    line, untrained_bundle, tiny_checkpoint, fails, tmp_path, monkeypatch, contents
):
    bundle, before = shutil.copytree(untrained_bundle, tmp_path / "face.bundle"), contents(untrained_bundle)
    places = {"B": bundle, "CKPT": tiny_checkpoint, "S": tmp_path}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bundle)  # the superuser may write everywhere
    fails(6, *(places.get(word, word) for word in line.split()), names=(bundle / "manifest.json", "Permission denied"))
    assert contents(bundle) == before


def test_every_verb_with_an_output_has_a_rule():
    for name, parser in verbs().items():
        options = {option for action in parser._actions for option in action.option_strings}
        assert (name in KNOWN) == bool(options & {"--out", "--layers", "--sensitivity"}), name
        assert ("--overwrite" in options) == (name in KNOWN - TELL_THEMSELVES or name == "label"), name


@pytest.mark.parametrize("call", CALLS)
def test_a_file_of_somebody_else_is_left_alone_before_any_work(call, fails, tmp_path):
    line, name = CALLS[call]
    target = tmp_path / name
    target.write_bytes(MINE)
    text = fails(3, *line.split(), "-o", target, names=(target, "left alone"))
    assert target.read_bytes() == MINE
    advised = shlex.split(text.split("Next: ")[1].splitlines()[0])
    assert advised[0] == "logoformer" and passes(shlex.join(advised[1:]))
    assert not passes(f"{line} -o {target}") and passes(f"{line} -o {tmp_path}/new/{name}")


@pytest.mark.parametrize("verb", ["run", "watch"])
def test_what_is_no_mp4_is_refused_as_that_and_never_with_overwrite(verb, tmp_path):
    """The verb refuses it whatever stands there: advice to overwrite would lead to that refusal."""
    (tmp_path / "mine.txt").write_bytes(MINE)
    assert passes(f"{verb} b.bundle v.mp4 -o {tmp_path}/mine.txt")
    with pytest.raises(UsageError, match=r"is an \.mp4") as caught:
        OverlaySink(tmp_path / "mine.txt", ["happy", "sad"])
    assert caught.value.next == f"-o {tmp_path}/mine.mp4"


@pytest.mark.parametrize("call", CALLS)
def test_a_pipe_in_its_place_is_not_waited_for(call, fails, tmp_path, impatient):
    line, name = CALLS[call]
    os.mkfifo(tmp_path / name)
    fails(3, *line.split(), "-o", tmp_path / name)


OURS: dict[str, Callable[[Path], object]] = {
    "run": lambda path: path.write_bytes(b"video" + MP4_END),
    "watch": lambda path: path.write_bytes(b"video" + MP4_END),
    "synth video": lambda path: path.write_bytes(b"video" + MP4_END),
    "bench": lambda path: path.write_text('{"format": "logoformer-bench"}'),
    "inspect": lambda path: path.write_text("<svg><text>Six attention schemes in tiny</text></svg>"),
}


@pytest.mark.parametrize("call", OURS)
def test_an_older_output_of_the_same_verb_is_replaced(call, tmp_path):
    line, name = CALLS[call]
    OURS[call](tmp_path / name)
    assert passes(f"{line} -o {tmp_path / name}")


def test_an_older_kit_and_an_older_evaluation_are_replaced(tmp_path):
    with zipfile.ZipFile(tmp_path / "kit.zip", "w") as archive:
        archive.writestr("kit.json", "{}")
    assert passes(f"fieldtest b.bundle -o {tmp_path}/kit.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("thesis.tex", "x")
    assert not passes(f"fieldtest b.bundle -o {tmp_path}/other.zip")
    line = f"evaluate ckpt --data faces -o {tmp_path} --tsne"
    assert passes(line)
    (tmp_path / "features.svg").write_text("<svg/>")
    assert not passes(line) and passes(line.removesuffix("--tsne"))
    (tmp_path / "result.json").write_text('{"result": 1}')
    assert not passes(line)
    keys = ("call", "parts", "machine", "metrics", "clips", "classes")
    (tmp_path / "result.json").write_text(json.dumps(dict.fromkeys(keys)))
    assert passes(line)


def test_what_is_written_beside_the_output_counts_too(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    assert not passes(f"synth --kind video -o {tmp_path}/x.mp4")
    (tmp_path / "report.html").write_text("mine")
    assert not passes(f"bench b.bundle -o {tmp_path}")
    (tmp_path / "report.json").write_text('{"format": "logoformer-bench"}')
    assert passes(f"bench b.bundle -o {tmp_path}")


TABLES = {  # the call without its folder, and the names that it writes there
    "quantize b.bundle --data faces --sensitivity": ("sensitivity",),
    "verify b.bundle --layers": ("layers.fp16", "layers.int8"),
}


@pytest.mark.parametrize("line", TABLES)
def test_tables_and_pictures_of_layers_and_groups_replace_their_own_alone(line, tmp_path, fails):
    table = {
        "sensitivity": ("groups", "steps", "clips"),
        "layers": ("graph", "precision", "layers", "first", "worst", "threshold", "clips", "evaluator"),
    }
    assert passes(f"{line} {tmp_path}") and passes(f"{line} {tmp_path}/new")
    for name in TABLES[line]:
        for suffix in (".json", ".svg"):
            target = tmp_path / f"{name}{suffix}"
            target.write_bytes(MINE)
            text = fails(3, *line.split(), tmp_path, names=(target, "left alone"))
            assert target.read_bytes() == MINE
            advised = shlex.split(text.split("Next: ")[1].splitlines()[0])
            assert "--overwrite" in advised and passes(shlex.join(advised[1:]))
            target.unlink()
        older = dict.fromkeys(table[name.partition(".")[0]])
        (tmp_path / f"{name}.json").write_text(json.dumps(older))
        (tmp_path / f"{name}.svg").write_text("<svg/>")  # beside an older table: its picture
        assert passes(f"{line} {tmp_path}")


def test_what_writes_no_table_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sensitivity.json", "layers.fp16.json"):
        (tmp_path / name).write_bytes(MINE)
    assert passes("quantize b.bundle --data faces") and passes("verify b.bundle")


def test_a_map_that_may_have_been_corrected_is_left_alone(tmp_path, fails):
    (tmp_path / "map.json").write_text("{}")
    fails(3, "import", "x.pth", "--suggest-map", tmp_path / "map.json", names=("corrected by hand",))
    assert passes(f"import x.pth --suggest-map {tmp_path}/map.json --overwrite")


def test_a_password_is_not_said_again(tmp_path, fails):
    (tmp_path / "x.mp4").write_bytes(MINE)
    text = fails(3, "watch", "b.bundle", "rtsp://admin:secret@10.0.0.5/1", "-o", tmp_path / "x.mp4")
    assert "secret" not in text and "--overwrite" in text


# -------------------------------------------------------------------------------------------------------------- weights
WEIGHTS = ("init", "import folds/y.pth", "train --data faces")


def checkpoint(folder: Path, recipe: object, **more: object) -> Path:
    folder.mkdir()
    data = {"format": "logoformer-checkpoint", "extra": {"recipe": recipe, **more}}
    (folder / "config.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("line", WEIGHTS)
def test_trained_and_imported_weights_are_left_alone_and_untrained_ones_are_not(line, tmp_path, fails):
    trained = checkpoint(tmp_path / "trained", {"steps": 800})
    theirs = checkpoint(tmp_path / "theirs", "import: MAE-DFER, weights of other people", imported={"file": "x.pth"})
    untrained = checkpoint(tmp_path / "untrained", "init: random weights")
    assert "were trained" in fails(3, *line.split(), "-o", trained, names=(trained,))
    assert "were imported" in fails(3, *line.split(), "-o", theirs, names=(theirs,))
    for folder in (trained, theirs):
        assert passes(f"{line} -o {folder} --overwrite")
    assert passes(f"{line} -o {untrained}") and passes(f"{line} -o {tmp_path}/new")
    assert passes(f"import folds/x.pth -o {theirs}") and not passes(f"import folds/x.pth -o {trained}")


def test_what_writes_no_weights_is_not_asked(tmp_path):
    trained = checkpoint(tmp_path / "trained", {"steps": 800})
    assert passes(f"import x.pth --dry-run -o {trained}") and passes(f"train --data faces --resume -o {trained}")
    assert passes("train --data faces --qat face.bundle")


def test_the_state_of_an_interrupted_training_is_left_alone(tmp_path, fails):
    from logoformer.model.training.fit import state_path

    state_path(tmp_path / "ckpt").write_bytes(b"hours")
    text = fails(3, "train", "--data", "faces", "-o", tmp_path / "ckpt", names=("--resume",))
    advised = shlex.split(text.split("Next: ")[1].splitlines()[0])
    assert advised[:3] == ["logoformer", "train", "--resume"] and passes(shlex.join(advised[1:]))
    assert passes(f"train --data faces --overwrite -o {tmp_path}/ckpt") and passes(f"init -o {tmp_path}/ckpt")


def test_the_log_of_another_training_is_left_alone(tmp_path, fails):
    log, line = tmp_path / "tr.log.jsonl", f"train --data faces -o {tmp_path}/tr"
    assert passes(line)
    log.touch()
    assert passes(line)  # nothing is lost with it, and a training of several processes finds the one that it began
    log.write_bytes(MINE)
    text = fails(3, *line.split(), names=(log, "left alone"))
    assert shlex.split(text.split("Next: ")[1].splitlines()[0])[:3] == ["logoformer", "train", "--overwrite"]
    assert log.read_bytes() == MINE
    assert passes(f"{line} --overwrite") and passes(f"{line} --resume") and passes(f"init -o {tmp_path}/tr")


@pytest.mark.parametrize("more", ["", " --overwrite"])
@pytest.mark.parametrize("target", ["full", "nothing"])
def test_a_link_in_the_place_of_the_log_is_refused(target, more, fails, tmp_path):
    train = pytest.importorskip("logoformer.model.training.train")
    (tmp_path / "full").write_bytes(MINE)
    (tmp_path / "tr.log.jsonl").symlink_to(tmp_path / target)
    if more:  # what `--overwrite` lets pass, the training itself refuses, before it looks at its data
        with pytest.raises(BadInputError, match="is a link"):
            train.train(None, None, None, None, tmp_path / "tr")
    else:
        fails(3, "train", "--data", "faces", "-o", tmp_path / "tr", names=("tr.log.jsonl",))
    assert (tmp_path / "full").read_bytes() == MINE and not (tmp_path / "nothing").exists()


def test_a_place_that_is_no_checkpoint_is_refused_also_with_overwrite(tmp_path, fails):
    pytest.importorskip("torch")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    fails(3, "init", "--preset", "tiny", "--overwrite", "-o", tmp_path / "mine", names=("left alone",))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"
    fails(3, "train", "--data", "gone", "--overwrite", "-o", tmp_path / "mine", names=("left alone",))  # not the data
