"""`python -m logoformer.studies.import_memory`: memory of `logoformer import`.

Writes `benchmarks/results/import-memory.json` and the table of `docs/published-weights.md`. Each file is of full size,
as its authors' training saves it: with an optimizer (two moments for each weight) and random weights. It lies in a
temporary folder and is removed. The import runs in a process of its own; its peak is read from `/proc/self/status`
after a reset (`/proc/self/clear_refs`), so that what Python and PyTorch take is told apart from what the import adds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..model.networks.configs import PRESETS, complexity
from ..model.networks.contract import NetworkConfig
from ..model.networks.families import FAMILIES, untrained
from ..model.networks.mae_dfer.config import MaeDferConfig
from .results import FOLDER, measured, read_results, show_results, write_results

COMMAND = "python -m logoformer.studies.import_memory"
RESULTS = FOLDER / "import-memory.json"
PAGE = Path("docs/published-weights.md")
FAMILIES_MEASURED = ("former-dfer", "mae-dfer")


@dataclass(frozen=True)
class ImportMemory:
    """Memory of one import.

    Attributes:
        preset: of the network.
        file_bytes: of the checkpoint, its optimizer included.
        tensor_bytes: of the model's weights as float32.
        before_bytes: resident before the import, PyTorch and this package loaded.
        peak_bytes: the most that was resident during the import.
        read_bytes: that the import read, by the kernel's count.
    """

    preset: str
    file_bytes: int
    tensor_bytes: int
    before_bytes: int
    peak_bytes: int
    read_bytes: int

    @property
    def share(self) -> float:
        """What the import added, over the bytes of the model's tensors."""
        return (self.peak_bytes - self.before_bytes) / self.tensor_bytes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "added_share_of_tensors": round(self.share, 4)}


def import_table(results: Mapping[str, Any]) -> str:
    """Sizes and costs of the published networks, and what an import adds, as a table of a page."""
    heads = ("", "parameters", "file with its optimizer", "memory that the import adds", "a clip", "a stream's answer")
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---:|---:|"]
    for row in results["rows"]:
        costs = complexity(PRESETS[row["preset"]])
        added = row["peak_bytes"] - row["before_bytes"]
        cells = (
            row["preset"],
            f"{costs.parameters / 1e6:.1f} M",
            f"{row['file_bytes'] / 1e6:.0f} MB",
            f"{added / 1e6:.0f} MB, {added / row['tensor_bytes']:.2f} of the weights",
            f"{costs.clip_macs / 1e9:.2f} GMACs",
            f"{costs.stream_macs / 1e9:.2f} GMACs",
        )
        lines.append(f"| {' | '.join(cells)} |")
    machine = results["machine"]
    who = f"`{results['command']}`, {machine['cpu']}, torch {machine['packages']['torch']}"
    lines += ["", f"Files of the authors' form with random weights: {who}. MACs by formula; a stream answers at hop 1."]
    return "\n".join(lines) + "\n"


def save_as_published(config: NetworkConfig, path: Path) -> int:
    """Saves an untrained network as its authors' training does; the bytes of its weights.

    Args:
        config: of Former-DFER or MAE-DFER.
        path: the file.
    """
    import torch

    state = untrained(config).state_dict()
    theirs = {}
    for name, tensor in FAMILIES[config.family].foreign(config).items():
        parts = [state[own] for own in tensor.ours]
        theirs[name] = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(tensor.shape).contiguous()
    weights = [value for value in theirs.values() if value.is_floating_point()]
    moments = {
        index: {"step": 1, "exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.zeros_like(value)}
        for index, value in enumerate(weights)
    }
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-4, "params": list(moments)}]}
    if isinstance(config, MaeDferConfig):
        entry = "vit_base_dim512_no_depth_patch16_160"
        settings = {"model": entry, "lg_region_size": list(config.region), "num_frames": config.frames}
        args = argparse.Namespace(**settings, input_size=config.image_size, data_set="DFEW", sampling_rate=4)
        torch.save({"model": theirs, "optimizer": optimizer, "epoch": "best", "args": args}, path)
    else:
        parallel = {f"module.{name}": value for name, value in theirs.items()}
        torch.save({"epoch": 99, "state_dict": parallel, "best_acc": 0.0, "optimizer": optimizer}, path)
    return sum(value.numel() * value.element_size() for value in theirs.values())


def measure_import(preset: str, file: Path, out: Path, tensor_bytes: int, heads: int | None = None) -> ImportMemory:
    """Imports a file in a process of its own and gives its memory.

    Args:
        preset: of the network, for the record.
        file: the checkpoint.
        out: the checkpoint of ours.
        tensor_bytes: of the weights.
        heads: where the file's width does not say them.
    """
    words = [sys.executable, "-m", f"{__package__}.import_memory", "--child", str(file), str(out), str(heads or 0)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found: Mapping[str, int] = json.loads(told.splitlines()[-1])
    return ImportMemory(preset, file.stat().st_size, tensor_bytes, **found)


def _child(file: str, out: str, heads: int) -> dict[str, int]:
    """One import, measured from inside."""
    import safetensors.torch  # noqa: F401 - what every import loads is not what this one adds

    from ..model.foreign import reader  # noqa: F401
    from ..model.importing import mapping, plan, recognise, report, settings  # noqa: F401
    from ..workflows.import_ import ImportRequest, import_checkpoint

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, read = _status("VmRSS"), _read_so_far()
    import_checkpoint(ImportRequest(file, out, options={"heads": heads} if heads else {}))
    return {"before_bytes": before, "peak_bytes": _status("VmHWM"), "read_bytes": _read_so_far() - read}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _read_so_far() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def main() -> None:
    """Measures both families at full size, or one import where a child is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3, metavar=("FILE", "OUT", "HEADS"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        print(json.dumps(_child(a.child[0], a.child[1], int(a.child[2]))))
        return
    rows = []
    for preset in FAMILIES_MEASURED:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "best.pth"
            tensors = save_as_published(PRESETS[preset], file)
            row = measure_import(preset, file, Path(folder) / "out", tensors)
        print(f"{preset}: {row.file_bytes / 1e6:.0f} MB file, {tensors / 1e6:.0f} MB of weights, "
              f"{(row.peak_bytes - row.before_bytes) / 1e6:.0f} MB added ({row.share:.3f} of the weights)")  # fmt: skip
        rows.append(row.to_json())
    write_results(RESULTS, measured(COMMAND, rows=rows))
    show_results(PAGE, {"import-memory": import_table(read_results(RESULTS))})


if __name__ == "__main__":
    main()
