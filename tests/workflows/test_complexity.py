"""`inspect --complexity`: legal points, measured figures, a picture that can be read. No time is judged."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from logoformer.benchmarks.report import fields
from logoformer.benchmarks.statistics import Ratio
from logoformer.cli import main as cli
from logoformer.errors import UsageError
from logoformer.model.networks.configs import complexity, preset
from logoformer.model.networks.logoformer.complexity import attention_macs
from logoformer.model.networks.logoformer.config import ATTENTIONS
from logoformer.studies import complexity as study
from logoformer.workflows.complexity import (
    SchemeCosts,
    centre_of,
    complexity_text,
    inspect_complexity,
    points,
    schemes_svg,
)

ROOT = Path(__file__).parents[2]
MARKERS = ("<!-- complexity:begin -->", "<!-- complexity:end -->")
PAGE = (ROOT / "docs/complexity.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small() -> SchemeCosts:
    pytest.importorskip("torch", reason="measuring needs the extra 'train'")
    return inspect_complexity(name="tiny", frames=[4, 8], sizes=[32])


@pytest.fixture(scope="module")
def committed() -> SchemeCosts:
    return study.read_costs(ROOT / study.RESULTS)


# --------------------------------------------------------------------------------------------------------------- points
@pytest.mark.parametrize("name", ["base", "wide", "tiny"])
def test_points_by_default_vary_one_axis_at_a_time_around_the_centre(name: str):
    centre = preset(name)
    found = points(centre)
    assert all(c.frames == centre.frames or c.image_size == centre.image_size for c in found)
    assert len({(c.frames, c.tokens_per_frame) for c in found}) == len(found)
    assert len({c.frames for c in found}) >= 4 and len({c.tokens_per_frame for c in found}) >= 2
    assert any((c.frames, c.image_size) == (centre.frames, centre.image_size) for c in found)


def test_base_has_at_least_three_of_each():
    found = points(preset("base"))
    assert {c.frames for c in found} == {4, 8, 16, 32} and {c.tokens_per_frame for c in found} == {4, 16, 36, 64}


@pytest.mark.parametrize(
    "chosen, said, advice",
    [
        ({"frames": [8, 6]}, "6 frames cannot be cut into windows of 4", "--frames 4 8 16 32"),
        ({"frames": [0]}, "0 frames cannot", "--frames 4"),
        ({"frames": [-4]}, "-4 frames cannot", "--frames 4"),
        ({"sizes": [70]}, "70 pixels give 5 x 5 tokens", "--sizes 32 64 96 128"),
        ({"sizes": [512]}, "Joint attention over 8192 tokens would take 2.0 GiB", "--sizes 32 64 96 128"),
    ],
)
def test_points_that_cannot_be_are_refused_before_time_is_spent(chosen: dict, said: str, advice: str):
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        points(preset("tiny"), **chosen)
    assert advice in caught.value.next


def test_points_that_are_advised_are_accepted():
    assert len(points(preset("tiny"), [4, 8, 16, 32], [32, 64, 96, 128])) == 7


def test_a_bundle_is_its_own_centre(untrained_bundle: Path):
    found = centre_of(untrained_bundle, None)
    assert replace(found, dropout=0.2) == replace(preset("tiny"), dropout=0.2)
    assert centre_of(None, None) == preset("base") and centre_of(None, "wide") == preset("wide")
    with pytest.raises(UsageError, match="its own configuration"):
        centre_of(untrained_bundle, "tiny")


# ------------------------------------------------------------------------------------------------------------ measuring
def check(costs: SchemeCosts) -> None:
    """Counts are the formulas', measured figures are there, `space` is its own measure."""
    assert {r.scheme for r in costs.rows} == set(ATTENTIONS)
    for r in costs.rows:
        (config,) = points(preset(costs.preset), [r.frames], [preset(costs.preset).image_size])[:1]
        config = replace(config, attention=r.scheme, image_size=r.image_size)
        assert config.tokens_per_frame == r.tokens_per_frame and config.frames == r.frames
        assert r.attention_macs == config.depth * attention_macs(config)
        assert (r.temporal_macs, r.clip_macs) == (complexity(config).temporal_macs, complexity(config).clip_macs)
        assert 0 < r.attention_macs < r.temporal_macs < r.clip_macs
        assert r.attention_ms > 0 and r.clip_ms > r.temporal_ms > 0
        for ratio in (r.attention_ratio, r.temporal_ratio, r.clip_ratio):
            assert 0 < ratio.low <= ratio.value <= ratio.high
            assert r.scheme != "space" or ratio == Ratio(1.0, 1.0, 1.0)
    for scheme in ATTENTIONS:
        for line in (costs.against_frames(scheme), costs.against_tokens(scheme)):
            for less, more in itertools.pairwise(line):
                assert less.attention_macs < more.attention_macs and less.clip_macs < more.clip_macs
    assert costs.threads == 1 and costs.seconds > 0 and costs.machine.packages["torch"]


def test_every_scheme_is_counted_and_measured_at_every_point(small: SchemeCosts):
    check(small)
    assert len(small.rows) == 6 * 3
    assert [r.frames for r in small.against_frames("logo")] == [4, 8]
    assert [r.tokens_per_frame for r in small.against_tokens("logo")] == [4, 16]
    assert fields.read(SchemeCosts, json.loads(json.dumps(small.to_json()))) == small


def test_the_tables_hold_every_row(small: SchemeCosts):
    lines = complexity_text(small).split("\n")
    assert lines[0].split()[:3] == ["scheme", "T", "S"] and len(lines) == 2 + 18 + 2
    assert "medians of 10 interleaved rounds" in lines[-1] and small.machine.python in lines[-1]
    tables = study.complexity_tables(small)
    assert tables.count("| logo |") == 6 and "| | T = 4 | T = 8 |" in tables and "| | S = 4 | S = 16 |" in tables


def test_the_verb_prints_draws_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], untrained_bundle: Path):
    pytest.importorskip("torch", reason="measuring needs the extra 'train'")
    words = ["inspect", "--complexity", str(untrained_bundle), "--frames", "8", "--sizes", "64", "--json"]
    assert cli.main([*words, "-o", str(tmp_path / "x.svg")]) == 0
    found = fields.read(SchemeCosts, json.loads(capsys.readouterr().out))
    assert found.preset == "tiny" and len(found.rows) == 6
    assert (tmp_path / "x.svg").read_text() == schemes_svg(found)
    for wrong, said in (
        (["inspect"], "needs a bundle"),
        (["inspect", str(untrained_bundle), "--frames", "4"], "go with --complexity"),
        (["inspect", "--complexity", "--preset", "huge"], "--preset: unknown value 'huge'"),
        (["inspect", "--complexity", "--preset", "tiny", "-o", str(tmp_path / "no" / "x.svg")], "No picture can be"),
        (["inspect", "--complexity", "--preset", "tiny", "-o", str(tmp_path)], "is a folder"),
    ):
        assert cli.main(wrong) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["inspect", "--complexity", str(tmp_path / "nothing")]) == 3


# -------------------------------------------------------------------------------------------------------------- picture
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("which", ["small", "committed"])
def test_the_picture_is_whole(which: str, request: pytest.FixtureRequest):
    costs: SchemeCosts = request.getfixturevalue(which)
    picture = schemes_svg(costs)
    texts = ["".join(item.itertext()) for item in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    for part in ("attention products", "whole model, one clip"):
        for unit in ("G MACs", "CPU ms"):
            assert texts.count(f"{part}, {unit}") == 2  # against T and against S
    assert [name for name in texts if name in ATTENTIONS] == list(ATTENTIONS)
    assert all(str(r.frames) in texts and str(r.tokens_per_frame) in texts for r in costs.rows)
    assert not re.search(r"<script|<image|@import|href=\"[^#]|url\([^#]", picture)


def axes_of(picture: str) -> list[ElementTree.Element]:
    groups = ElementTree.fromstring(picture).iter(f"{SVG}g")
    return [group for group in groups if re.fullmatch(r"axes_\d+", group.get("id", ""))]


def places(picture: str, panel: int, scheme: str) -> list[tuple[float, float]]:
    """Where one scheme's line goes in a panel; y grows downwards."""
    lines = [g for g in axes_of(picture)[panel] if re.fullmatch(r"line2d_\d+", g.get("id", ""))]
    path = lines[ATTENTIONS.index(scheme)].find(f"{SVG}path")
    numbers = [float(word) for word in re.findall(r"-?[\d.]+", path.get("d"))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_each_dot_is_a_row(small: SchemeCosts):
    """Places keep the order of the figures, over all schemes of a panel."""
    picture = schemes_svg(small)
    assert len(axes_of(picture)) == 8
    figures = itertools.product(
        ("attention_macs", "attention_ms", "clip_macs", "clip_ms"), ("frames", "tokens_per_frame")
    )
    for panel, (figure, axis) in enumerate(figures):
        dots, wanted = [], []
        for scheme in ATTENTIONS:
            rows = small.against_frames(scheme) if axis == "frames" else small.against_tokens(scheme)
            dots += [(x, -y) for x, y in places(picture, panel, scheme)]
            wanted += [(float(getattr(r, axis)), float(getattr(r, figure))) for r in rows]
        assert len(dots) == len(wanted) == 6 * 2
        for side in (0, 1):
            placed, logs = [dot[side] for dot in dots], [math.log(w[side]) for w in wanted]
            slope = (max(placed) - min(placed)) / (max(logs) - min(logs))
            for one, log in zip(placed, logs, strict=True):
                assert one == pytest.approx(min(placed) + slope * (log - min(logs)), abs=0.1)


def test_a_power_is_a_straight_line(committed: SchemeCosts):
    """Joint attention's products grow with the square of T: equal steps on both logarithmic axes."""
    ys = [y for _, y in places(schemes_svg(committed), 0, "joint")]
    steps = [a - b for a, b in itertools.pairwise(ys)]
    assert len(steps) == 3 and min(steps) > 0 and max(steps) < 1.05 * min(steps)


# ------------------------------------------------------------------------------------------------------------ committed
def test_the_committed_result_is_a_whole_one(committed: SchemeCosts):
    check(committed)
    assert committed.preset == "base" and len(committed.rows) == 6 * 7
    told = json.loads((ROOT / study.RESULTS).read_text())
    assert told["command"] == study.COMMAND and told["machine"]["cpu"]


def test_the_page_shows_the_committed_result(committed: SchemeCosts):
    begin, end = MARKERS
    assert PAGE.split(begin)[1].split(end)[0].lstrip("\n") == study.complexity_tables(committed)
    assert (ROOT / study.PICTURE).read_text(encoding="utf-8") == schemes_svg(committed)


def test_the_page_says_the_formulas_of_the_code():
    rows = re.findall(r"^\| (\w+) \| O\(.*?\) \| `(.*?)` \|$", PAGE, re.MULTILINE)
    assert {name for name, _ in rows} == set(ATTENTIONS)
    for (name, formula), frames, size in itertools.product(rows, (4, 8, 16), (32, 64, 96)):
        (config, *_) = points(preset("tiny"), [frames])
        config = replace(config, attention=name, image_size=size)
        known = {"T": config.frames, "S": config.tokens_per_frame, "N": config.tokens,
                 "W": config.windows, "L": config.window_tokens}  # fmt: skip
        pairs = eval(formula.replace("²", "**2").replace("·", "*"), {"__builtins__": {}}, known)
        assert 2 * config.embed_dim * pairs == attention_macs(config), name


def test_the_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch", reason="measuring needs the extra 'train'")
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```") // 2 == 1
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(blocks[0])
    assert program == "logoformer" and cli.main(words) == 0
    assert (tmp_path / "complexity.svg").stat().st_size > 10_000


def test_the_experiment_writes_all_three(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    # Two minutes on `base`; what is written does not depend on which model was measured.
    monkeypatch.setattr(study, "inspect_complexity", lambda *, name, progress: small)
    begin, end = MARKERS
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "docs/complexity.md").write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.chdir(tmp_path)
    assert study.main() == 0
    costs = study.read_costs(study.RESULTS)
    assert costs == small
    assert (
        tmp_path / "docs/complexity.md"
    ).read_text() == f"before\n{begin}\n{study.complexity_tables(costs)}{end}\nafter\n"
    assert (tmp_path / "docs/complexity.svg").read_text() == schemes_svg(costs)
    assert study.complexity_tables(costs) in capsys.readouterr().out
