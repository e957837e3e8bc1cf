"""`inspect --complexity`: legal points, measured figures, a picture that can be read. No time is judged."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from logoformer.benchmarks.report import fields
from logoformer.benchmarks.report.html_svg import number
from logoformer.benchmarks.statistics import Ratio
from logoformer.cli import main as cli
from logoformer.errors import UsageError
from logoformer.model.networks.complexity import attention_macs, complexity
from logoformer.model.networks.config import ATTENTIONS, preset
from logoformer.studies import complexity as experiments_complexity
from logoformer.workflows.scheme_costs import SchemeCosts, centre_of, points
from logoformer.workflows.scheme_plot import plot
from logoformer.workflows.scheme_report import inspect_complexity, markdown, text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/complexity.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small() -> SchemeCosts:
    pytest.importorskip("torch", reason="measuring needs the extra 'train'")
    return inspect_complexity(name="tiny", frames=[4, 8], sizes=[32])


@pytest.fixture(scope="module")
def committed() -> SchemeCosts:
    return experiments_complexity.read_costs(ROOT / experiments_complexity.RESULTS)


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
    lines = text(small).split("\n")
    assert lines[0].split()[:3] == ["scheme", "T", "S"] and len(lines) == 2 + 18 + 2
    assert "medians of 10 interleaved rounds" in lines[-1] and small.machine.python in lines[-1]
    tables = markdown(small)
    assert tables.count("| logo |") == 6 and "| | T = 4 | T = 8 |" in tables and "| | S = 4 | S = 16 |" in tables


def test_the_verb_prints_draws_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], untrained_bundle: Path):
    pytest.importorskip("torch", reason="measuring needs the extra 'train'")
    words = ["inspect", "--complexity", str(untrained_bundle), "--frames", "8", "--sizes", "64", "--json"]
    assert cli.main([*words, "-o", str(tmp_path / "x.svg")]) == 0
    found = fields.read(SchemeCosts, json.loads(capsys.readouterr().out))
    assert found.preset == "tiny" and len(found.rows) == 6
    assert (tmp_path / "x.svg").read_text() == plot(found)
    for wrong, said in (
        (["inspect"], "needs a bundle"),
        (["inspect", str(untrained_bundle), "--frames", "4"], "go with --complexity"),
        (["inspect", "--complexity", "--preset", "huge"], "--preset: unknown value 'huge'"),
        (["inspect", "--complexity", "--preset", "tiny", "-o", str(tmp_path / "no" / "x.svg")], "No picture can be"),
        (["inspect", "--complexity", "--preset", "tiny", "-o", str(tmp_path)], "No picture can be"),
    ):
        assert cli.main(wrong) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["inspect", "--complexity", str(tmp_path / "nothing")]) == 3


# -------------------------------------------------------------------------------------------------------------- picture
def texts(panel: ElementTree.Element) -> list[tuple[float, float, float, float, str]]:
    """(left, top, right, bottom, text) of a panel's texts, widths estimated from above."""
    found = []
    for item in panel.iter("{http://www.w3.org/2000/svg}text"):
        shown = "".join(item.itertext())
        x, y, wide = float(item.get("x")), float(item.get("y")), 6.2 * len(shown)
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[item.get("text-anchor", "start")]
        found.append((left, y - 9, left + wide, y + 2, shown))
    return found


@pytest.mark.parametrize("which", ["small", "committed"])
def test_the_picture_is_whole_and_nothing_in_it_touches(which: str, request: pytest.FixtureRequest):
    costs: SchemeCosts = request.getfixturevalue(which)
    picture = plot(costs)
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{space}g")
    assert len(panels) == 8
    for panel in panels:
        lines = [p.get("class").split()[2] for p in panel.iter(f"{space}path")]
        assert sorted(lines) == sorted(ATTENTIONS)
        for a, b in itertools.combinations(texts(panel), 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
        for left, top, right, bottom, shown in texts(panel):
            assert left >= 0 and right <= 400 and top >= 0 and bottom <= 200, shown
        for dot in panel.iter(f"{space}circle"):
            assert 40 < float(dot.get("cx")) < 400 and 20 < float(dot.get("cy")) < 170
    legend = [t.text for t in root.findall(f"{space}text")][1:]
    assert legend == list(ATTENTIONS)
    assert "prefers-color-scheme: dark" in picture
    assert not re.search(r"<script|<image|href|url\(|@import", picture)


def test_each_dot_is_a_row(small: SchemeCosts):
    """What a pointer that rests on a dot is told: the scheme, T or S, and the figure that the panel is of."""
    parts = ("attention_macs", "attention_ms", "clip_macs", "clip_ms")
    found, wanted = [], []
    for panel in ElementTree.fromstring(plot(small)).iter("{http://www.w3.org/2000/svg}g"):
        found.append({"".join(dot.itertext()) for dot in panel.iter("{http://www.w3.org/2000/svg}circle")})
    for part, (axis, of) in itertools.product(parts, (("frames", 16), ("tokens_per_frame", 8))):
        unit = 1e9 if part.endswith("macs") else 1
        rows = [r for r in small.rows if of == (r.tokens_per_frame if axis == "frames" else r.frames)]
        wanted.append({f"{r.scheme}: {getattr(r, axis)}, {number(getattr(r, part) / unit)}" for r in rows})
    assert found == wanted


def test_a_power_is_a_straight_line(committed: SchemeCosts):
    """Joint attention's products grow with the square of T: equal steps on both logarithmic axes."""
    panel = ElementTree.fromstring(plot(committed)).find("{http://www.w3.org/2000/svg}g")
    (line,) = [p for p in panel.iter("{http://www.w3.org/2000/svg}path") if "joint" in p.get("class").split()]
    ys = [float(point.split(",")[1]) for point in line.get("d")[1:].split("L")]
    steps = [a - b for a, b in itertools.pairwise(ys)]
    assert len(steps) == 3 and min(steps) > 0 and max(steps) < 1.05 * min(steps)


# ------------------------------------------------------------------------------------------------------------ committed
def test_the_committed_result_is_a_whole_one(committed: SchemeCosts):
    check(committed)
    assert committed.preset == "base" and len(committed.rows) == 6 * 7
    told = json.loads((ROOT / experiments_complexity.RESULTS).read_text())
    assert told["command"] == experiments_complexity.COMMAND and told["machine"]["cpu"]


def test_the_page_shows_the_committed_result(committed: SchemeCosts):
    begin, end = experiments_complexity.MARKERS
    assert PAGE.split(begin)[1].split(end)[0].lstrip("\n") == markdown(committed)
    assert (ROOT / experiments_complexity.PICTURE).read_text(encoding="utf-8") == plot(committed)


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
    monkeypatch.setattr(experiments_complexity, "inspect_complexity", lambda *, name, progress: small)
    begin, end = experiments_complexity.MARKERS
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "docs/complexity.md").write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.chdir(tmp_path)
    assert experiments_complexity.main() == 0
    costs = experiments_complexity.read_costs(experiments_complexity.RESULTS)
    assert costs == small
    assert (tmp_path / "docs/complexity.md").read_text() == f"before\n{begin}\n{markdown(costs)}{end}\nafter\n"
    assert (tmp_path / "docs/complexity.svg").read_text() == plot(costs)
    assert markdown(costs) in capsys.readouterr().out
