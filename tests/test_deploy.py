"""The files in `deploy/`: taken by the programs that check such files, and true to what this package offers."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
from logoformer.camera.pipeline.board import Board, CameraState
from logoformer.camera.pipeline.counts import AGE_BOUNDS_S
from logoformer.camera.web.metrics import STATES, prometheus_text
from logoformer.cli.main import make_parser

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
ALERTS, DASHBOARD, PROMETHEUS = DEPLOY / "alerts.yaml", DEPLOY / "grafana.json", DEPLOY / "prometheus.yaml"
COMPOSE, KUBERNETES = DEPLOY / "compose.yaml", DEPLOY / "kubernetes.yaml"


def program(name: str, where: str) -> str:
    """A program of this venv, or of the system."""
    found = shutil.which(name, path=os.fspath(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed ({where})")
    return found


def checked(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=120)


def documents(path: Path) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (the extra 'docs')")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


# ---------------------------------------------------------------------------------------------------- by their programs
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_takes_the_dockerfiles(path):
    done = checked(program("hadolint", "the extra 'dev'"), path)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_a_planted_fault(tmp_path):
    text = DOCKERFILES[0].read_text(encoding="utf-8").replace("CMD [", "CMD tritonserver [", 1)
    (tmp_path / "Dockerfile").write_text(f"{text}RUN cd /opt && sudo pip install numpy\n")
    assert checked(program("hadolint", "the extra 'dev'"), tmp_path / "Dockerfile").returncode != 0


def test_the_compose_file_fits_its_schema(tmp_path):
    check = (program("check-jsonschema", "the extra 'dev'"), "--builtin-schema", "vendor.compose-spec")
    done = checked(*check, COMPOSE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("shm_size:", "shared_memory:"))
    assert checked(*check, wrong).returncode != 0


def test_the_manifest_fits_the_schemas_of_kubernetes(tmp_path):
    check = (program("kubernetes-validate", "the extra 'dev'"), "--strict")
    done = checked(*check, KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "kubernetes.yaml"
    wrong.write_text(KUBERNETES.read_text(encoding="utf-8").replace("livenessProbe:", "livelinessProbe:"))
    assert checked(*check, wrong).returncode != 0


@pytest.fixture
def promtool() -> str:
    return program("promtool", "Debian's prometheus, tests/install-system.sh")


def test_promtool_takes_the_configuration_and_the_rules(promtool):
    done = checked(promtool, "check", "config", "--syntax-only", PROMETHEUS)
    assert done.returncode == 0, done.stderr
    done = checked(promtool, "check", "rules", ALERTS)
    assert done.returncode == 0 and f"{len(alerts())} rules found" in done.stdout, done.stdout + done.stderr


def test_promtool_takes_every_query_of_the_dashboard(promtool, tmp_path):
    variables = {"$instance": ".*", "$source": ".*"}
    rules = []
    for number, query in enumerate(queries()):
        for name, value in variables.items():
            query = query.replace(name, value)
        rules.append({"record": f"panel:query{number}", "expr": query})
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = checked(promtool, "check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_on_its_fault_and_is_silent_without_one(promtool, tmp_path):
    series = (ROOT / "tests/data/alerts-test.yaml").read_text(encoding="utf-8")
    (tmp_path / "series.yaml").write_text(series.replace("[ALERTS]", f"[{ALERTS}]"))
    done = checked(promtool, "test", "rules", tmp_path / "series.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    for alert in alerts():
        assert series.count(f"alertname: {alert['alert']}\n") + series.count(f"alertname: {alert['alert']} ") == 2
    slack = ALERTS.read_text(encoding="utf-8").replace("> 0.2 *", "> 0.9 *")  # the test sees a rule that lost its edge
    (tmp_path / "slack.yaml").write_text(slack)
    (tmp_path / "series.yaml").write_text(series.replace("[ALERTS]", f"[{tmp_path / 'slack.yaml'}]"))
    assert checked(promtool, "test", "rules", tmp_path / "series.yaml").returncode != 0


# ------------------------------------------------------------------------------------------- true to what /metrics says
def alerts() -> list[dict[str, Any]]:
    return [rule for group in documents(ALERTS)[0]["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def exported() -> dict[str, set[str]]:
    """{series: its labels} of the page /metrics of a watch."""
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed (the extra 'watch')")
    state = CameraState(
        "cam", "live", "", True, dropped={"capture": 1, "overload": 2}, skipped={"small": 1},
        age_under=(0,) * (len(AGE_BOUNDS_S) + 1),
    )  # fmt: skip
    board = Board(("cam",), {})
    board.tell((state,), {})
    found: dict[str, set[str]] = {}
    for line in prometheus_text(board)[0].decode().splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels or ""))
    return found


@pytest.mark.parametrize("kind", ["alerts", "dashboard"])
def test_every_series_of_ours_is_one_that_watch_exports(kind):
    known = exported()
    texts = [rule["expr"] for rule in alerts()] if kind == "alerts" else queries()
    used = {name for text in texts for name in re.findall(r"\blogoformer_\w+", text)}
    assert len(used) >= 7 and used - set(known) == set()
    for text in texts:
        for name, labels in re.findall(r"\b(logoformer_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)=~?\"", labels)) <= known[name] | {"instance"}, text
        for states in re.findall(r'state=~?"([^"]+)"', text):
            assert set(states.split("|")) <= set(STATES)
        for causes in re.findall(r'cause=~?"([^"]+)"', text):
            assert causes in ("capture", "overload")


def test_the_dashboard_shows_every_series_of_watch():
    shown = " ".join(queries())
    assert [name for name in exported() if name not in shown and not name.endswith("_created")] == []


def test_variables_and_places_of_the_dashboard():
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    known = {one["name"] for one in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)", json.dumps(panels))) <= known
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24  # none lies over another


# --------------------------------------------------------------------------------------------- true to the command line
def lists_in(value: Any) -> Iterator[list[str]]:
    """Every list of words in a document, `command` and `args` of a container joined."""
    if isinstance(value, dict):
        if isinstance(value.get("command"), list) and isinstance(value.get("args"), list):
            yield [*value["command"], *value["args"]]
            value = {key: inner for key, inner in value.items() if key not in ("command", "args")}
        for inner in value.values():
            yield from lists_in(inner)
    elif isinstance(value, list):
        if value and all(isinstance(one, str) for one in value):
            yield value
        else:
            for inner in value:
                yield from lists_in(inner)


def commands() -> Iterator[tuple[str, list[str]]]:
    """(file, words after `logoformer`) of every command line of ours."""
    found = [(path.name, json.loads(words)) for path in DOCKERFILES for words in json_lists(path)]
    for path in (COMPOSE, KUBERNETES):
        text = re.sub(r"\$\{(\w+)[^}]*\}", r"\1", path.read_text(encoding="utf-8"))
        yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (the extra 'docs')")
        found += [(path.name, words) for one in yaml.safe_load_all(text) for words in lists_in(one)]
    yield from ((name, words[1:]) for name, words in found if words[0] == "logoformer")


def json_lists(path: Path) -> list[str]:
    return re.findall(r"(?:CMD|ENTRYPOINT) (\[.*\])$", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_our_parser_takes_every_command_line():
    parser, found = make_parser(), list(commands())
    verbs: dict[str, int] = {}
    for name, words in found:
        if words == ["--help"]:
            continue
        try:
            a: argparse.Namespace = parser.parse_args(words)
        except SystemExit:
            pytest.fail(f"{name}: {words}")
        verbs[a.verb] = verbs.get(a.verb, 0) + 1
    assert verbs == {"triton-check": 3 + 2, "triton": 2, "watch": 4}


def test_a_probe_waits_for_longer_than_the_check_and_the_check_for_longer_than_a_sequence_may_be_idle():
    parser = make_parser()
    idle_s = {parser.parse_args(words).idle for _, words in commands() if words[0] == "triton"}
    timeouts_s = {parser.parse_args(words).timeout for _, words in commands() if words[0] == "triton-check"}
    assert max(idle_s) < min(timeouts_s)
    text = "".join(path.read_text(encoding="utf-8") for path in (*DOCKERFILES, KUBERNETES) if "watch" not in path.name)
    probes_s = [int(found) for found in re.findall(r"(?:--timeout=|timeoutSeconds: )(\d+)", text)]
    assert len(probes_s) == 5 and min(probes_s) > 2 * max(timeouts_s)


# ----------------------------------------------------------------------------------------------------- true to the rest
def test_the_wheel_and_the_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"logoformer-([\d.]+)-py3", text)) == {project["version"]}
        named = re.findall(r"\.whl\[([^\]]+)\]", text) + re.findall(r"^# ([a-z0-9,]+(?: and [a-z0-9,]+)*):", text, re.M)
        extras = {extra for group in named for extra in re.split(r",| and ", group)} - {"${EXTRAS}"}
        assert extras and extras <= set(project["optional-dependencies"]), path


def test_every_file_says_that_it_ran_nowhere():
    files = [path for path in DEPLOY.iterdir() if path.suffix != ".dockerignore"]
    assert len(files) >= 9
    assert [path.name for path in files if "Not run in a cluster" not in path.read_text(encoding="utf-8")] == []


def test_only_tags_that_are_known_are_named():
    bases = {path.name: re.findall(r"^FROM (.*)", path.read_text(encoding="utf-8"), re.M) for path in DOCKERFILES}
    assert bases == {
        "triton.arm64.Dockerfile": ["nvcr.io/nvidia/tritonserver:${TRITON_TAG}"],
        "triton.jetpack6.Dockerfile": ["nvcr.io/nvidia/tritonserver:26.02-py3-igpu"],
        "triton.x86.Dockerfile": ["nvcr.io/nvidia/tritonserver:${TRITON_TAG}"],
        "watch.Dockerfile": ["python:3.12-slim"],
    }
