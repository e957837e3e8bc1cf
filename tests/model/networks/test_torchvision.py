"""The trunk against torchvision's ResNet-18, by torchvision's own parameter names.

Torchvision is in a folder of its own and in another process: beside torch's CPU build its compiled operators do not
load, and whatever tries to import it there would fail. The network needs none of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RELEASE = "0.28.0"  # of torch 2.13; later ones have the same ResNet
FOLDER = Path(__file__).parents[3] / "build" / "venvs" / f"torchvision-{RELEASE}"
SCRIPT = """
import json
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):  # their stand-ins are registered at import, with the operators or without
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision
from logoformer.model.networks.backbone import Trunk
from logoformer.model.networks.contract import map_side, trunk_costs
from torchvision.models.resnet import BasicBlock, ResNet

torch.manual_seed(0)
found = {"torchvision": torchvision.__version__}
for name, blocks in (("resnet18", [2, 2, 2, 2]), ("resnet34", [3, 4, 6, 3])):
    theirs, ours = ResNet(BasicBlock, blocks), Trunk(7, (64, 128, 256, 512), tuple(blocks))
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if key.endswith("running_var") or ("bn" in key or "downsample.1" in key) and key.endswith("weight"):
                value.uniform_(0.5, 1.5)
            elif key.endswith(("running_mean", "bias")):
                value.normal_(0, 0.2)
    weights = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(weights)  # strict: the same names and shapes
    theirs.avgpool = theirs.fc = torch.nn.Identity()
    theirs.double(), ours.double()
    result = found[name] = {"sides": {}}
    for side in (64, 49) if name == "resnet18" else (33,):
        x = torch.rand(2, 3, side, side, dtype=torch.float64)
        for mode in ("eval", "train"):
            theirs.train(mode == "train"), ours.train(mode == "train")
            inputs = [x.clone().requires_grad_() for _ in range(2)]
            wanted, given = theirs(inputs[0]), ours(inputs[1])
            pull = torch.randn_like(given)
            (wanted * pull.flatten(1)).sum().backward()
            (given * pull).sum().backward()
            grids = given.shape[2] == map_side(side, 4) == trunk_costs(side, 7, (64, 128, 256, 512), tuple(blocks))[2]
            result["sides"][f"{side} {mode}"] = [
                float((wanted - given.flatten(1)).abs().max() / wanted.abs().max()),
                float((inputs[0].grad - inputs[1].grad).abs().max() / inputs[0].grad.abs().max()),
                float(wanted.abs().mean()), grids,
            ]
    buffers = dict(theirs.named_buffers())
    result["statistics"] = max(float((buffers[key] - value).abs().max()) for key, value in ours.named_buffers())
    parameters = sum(value.numel() for key, value in theirs.named_parameters())
    result["parameters"] = parameters == trunk_costs(112, 7, (64, 128, 256, 512), tuple(blocks))[1]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def torchvision() -> Path:
    """The folder with the package, made once and kept."""
    done = FOLDER / "complete"
    if not done.exists():
        words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER)]
        made = subprocess.run([*words, f"torchvision=={RELEASE}"], capture_output=True, check=False)
        if made.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(made.stderr.decode()[-300:])
        done.touch()
    return FOLDER


def test_the_trunk_is_torchvisions(torchvision: Path):
    path = os.pathsep.join(filter(None, [str(torchvision), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("torchvision").startswith(RELEASE)
    assert found.keys() == {"resnet18", "resnet34"}
    for name, result in found.items():
        assert result["statistics"] < 1e-10 and result["parameters"], name
        for what, (apart, gradient, size, grids) in result["sides"].items():
            assert apart < 1e-10 and gradient < 1e-8 and size > 1e-3 and grids, (name, what)
