"""A real slow-down, planted in a project under git and measured with `--interleave`, to hold the simulated ones against.

A network of twenty like blocks has one more, or two more, in the newer version, or none: 5, 10 and 0 % of further time.

    python -m tests.compare.planted measure FOLDER    # fifteen launches, ten minutes
    python -m tests.compare.planted record FOLDER     # into `RECORDED`
    python -m tests.compare.planted                   # what draws of ten of the recorded launches come to
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from revbench.compare.ratios import ratios_in_turn
from revbench.compare.runs import TIME_CHANGE
from revbench.compare.times import change_of, verdicts
from revbench.probes.declared import TIME
from revbench.results.runs import read_run
from tests.compare.proof import LAUNCHES
from tests.conftest import git

RECORDED = Path(__file__).parent / "recorded_slow_downs.json"
BLOCKS = 20
PLANTED = {"unchanged": 0, "five_percent": 1, "ten_percent": 2}  # further blocks
NETWORK = """
import torch
from torch import nn
import revbench


def network(blocks):
    def half():
        return nn.Sequential(nn.Linear(192, 192), nn.ReLU())

    def batch(count, generator):
        return torch.randn(count, 384, generator=generator), torch.randn(count, 384, generator=generator)

    return revbench.reversible([(half(), half()) for _ in range(blocks)]), batch, nn.functional.mse_loss
"""


def measure(folder: Path, repeats: int) -> None:
    """Measure both versions in turn; the run folders `run` and `run-baseline` are in the folder afterwards."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    for newer in (False, True):
        factories = [
            f"\n\ndef {name}():\n    return network({BLOCKS + newer * more})\n" for name, more in PLANTED.items()
        ]
        (folder / "planted.py").write_text(NETWORK + "".join(factories))
        git(folder, "add", "planted.py")
        git(folder, "commit", "--quiet", "-m", "a version")
    models = [f"planted:{name}" for name in PLANTED]
    command = ["run", *models, "--strategy", "stored", "--probe", "time", "--batch-size", "128", "--device", "cpu"]
    asked = [*command, "--repeats", str(repeats), "--interleave", "HEAD~", "--output", "run"]
    done = subprocess.run([sys.executable, "-m", "revbench", *asked], cwd=folder)
    if done.returncode not in (0, 1):  # 1 is what is hoped for: the gate has found them
        sys.exit(done.returncode)


def record(folder: Path) -> dict[str, list[float]]:
    """Returns the ratios of the launches, by what was planted."""
    before, now = read_run(folder / "run-baseline"), read_run(folder / "run")
    found = {}
    for name in PLANTED:
        of_case = [[row for row in run.rows if row.case.model == f"planted:{name}"] for run in (now, before)]
        found[name] = [round(ratio, 5) for ratio in ratios_in_turn(*of_case, TIME["step_seconds"].name)]
    return found


def found_in(recorded: Mapping[str, Sequence[float]], draws: int) -> dict[str, dict[str, int]]:
    """Returns how often each was called worse and better, of comparisons of `LAUNCHES` launches drawn without replacement."""
    generator = np.random.default_rng(0)
    launches = min(map(len, recorded.values()))
    counts = {name: {"worse": 0, "better": 0} for name in recorded}
    for _ in range(draws):
        chosen = generator.choice(launches, LAUNCHES, replace=False)
        changes = []
        for ratios in recorded.values():
            drawn = [ratios[i] for i in chosen]
            changes.append(change_of([1.0] * LAUNCHES, drawn, in_turn=True, ratios=drawn))
        for name, verdict in zip(recorded, verdicts(changes, [TIME_CHANGE] * len(changes)), strict=True):
            if verdict in counts[name]:
                counts[name][verdict] += 1
    return counts


def main() -> None:
    """Measure, record, or print what is recorded."""
    match sys.argv[1:]:
        case ["measure", folder]:
            measure(Path(folder), 15)
        case ["record", folder]:
            RECORDED.write_text(json.dumps(record(Path(folder)), indent=1) + "\n")
        case []:
            recorded = json.loads(RECORDED.read_text())
            for name, counts in found_in(recorded, 1000).items():
                logs = np.log(recorded[name])
                print(
                    f"{name}: {np.exp(logs.mean()):.3f} × of {len(logs)} launches, which scatter by {logs.std(ddof=1):.1%};"
                    f" {counts['worse']} of 1000 draws worse, {counts['better']} better"
                )
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
