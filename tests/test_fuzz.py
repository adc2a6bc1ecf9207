"""20,000 mutated files, through every reader: an error in one line or a result, and nothing else."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from revbench.case import Case
from revbench.compare import compare_folders
from revbench.errors import UserError
from revbench.report import write_report
from revbench.results.frames import load_runs
from revbench.results.journal import Journal
from revbench.results.merge import merge_runs
from revbench.results.runs import ROWS, read_run
from revbench.runner.environment import lines_of
from revbench.runner.session import result_of
from revbench.terminal import say_json
from revbench.training.checkpoint import Checkpoints, restore, sealed, state_of, with_digest
from revbench.training.image_folder import open_image
from revbench.training.series_file import COLUMNS, SeriesFile
from revbench.workload import build_workload
from tests.conftest import ROOT
from tests.results.rows import ENVIRONMENT, make_row

COUNTS = {"rows": 12_000, "series": 3_000, "checkpoints": 3_000, "images": 2_000}
LONGEST_SECONDS = 60.0
MOST_BYTES = 2 << 30  # more than before
REFERENCE = ROOT / "reports" / "reference" / "cpu-2core"

ODD: tuple[bytes, ...] = (
    b"NaN", b"Infinity", b"-1e999", b"1e308", b"-1", b"0", b"9" * 400, b"null", b"true", b'""', b"[]", b"{}", b"[[[[[1]]]]]",
    b"[" * 2000, b'{"a":' * 500, b'"\\ud800"', b'"\\u0000\\u001b[2J"', b"\x00", b"\xff\xfe", b"\n", b'"' + b"x" * 20_000 + b'"',
    b'"../../../etc/passwd"', b'"/etc/passwd"', b'"cuda:x"', b'"cuda:-1"', b'"os:system"', b"1e5", b'"<script>"', b"[NaN]",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e300, 2**62, "", "x" * 300, "\x1b[2J", "cuda:7", "../x", [], [1], [[]], {}, {"a": 1}, 0.5, "nan",
    "revbench.peers:chain(kind=basic,blocks=4)", "a.b:c", 10**9,
)  # fmt: skip

FIGURES: tuple[Any, ...] = (
    None, 0, -1, 1, 2**62, -(2**62), 1e150, -1e150, 5e-324, 0.1, 1e-30, 1e15, "", "x" * 3000, "\x1b[2J", "nan", "safe", "1",
)  # fmt: skip


def mutate(random: random.Random, content: bytes) -> bytes:
    """One to four changes: bits, pieces, odd words."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        how = random.randrange(6)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        elif how == 1:
            del data[at : at + random.choice((1, 10, 1000, len(data)))]
        elif how == 2:
            data[at:at] = random.choice(ODD)
        elif how == 3:
            end = random.randrange(len(data) + 1)
            data[at:at] = data[min(at, end) : max(at, end)][:10_000]
        elif how == 4:
            data[at : at + random.randint(1, 20)] = random.choice(ODD)
        else:
            data[at:at] = random.randbytes(random.randint(1, 20))
    return bytes(data)


def mutate_json(random: random.Random, content: bytes) -> bytes:
    """One value somewhere in one record is another; or bytes, as above."""
    if random.random() < 0.3:
        return mutate(random, content)
    lines = content.splitlines()
    if random.random() < 0.5 and b'"kind": "row"' in lines[-1]:
        return mutate_values(random, lines)
    i = random.randrange(len(lines))
    record = json.loads(lines[i])
    inner: Any = record
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            break
        key = random.choice(keys)
        if isinstance(inner[key], (dict, list)) and inner[key] and random.random() < 0.7:
            inner = inner[key]
            continue
        how = random.randrange(4)
        if how == 0:
            del inner[key]
        elif how == 1 and isinstance(inner, dict):
            inner[random.choice(("extra", "\x1b", "a" * 300, "kind"))] = inner.pop(key)
        else:
            inner[key] = random.choice(ODD_VALUES)
        break
    lines[i] = json.dumps(record).encode()
    return b"\n".join(lines) + b"\n"


def mutate_values(random: random.Random, lines: list[bytes]) -> bytes:
    """Figures and words of the rows are others, but of the right kind, so that they go on to where they are used."""
    records = [json.loads(line) for line in lines]
    for _ in range(random.randint(1, 12)):
        row = random.choice([record for record in records if record.get("kind") == "row"])
        for name in random.sample(sorted(row["metrics"]), min(4, len(row["metrics"]))):
            row["metrics"][name] = random.choice(FIGURES)
        for name in random.sample(sorted(row["samples"]), min(2, len(row["samples"]))):
            row["samples"][name] = random.choices(
                [x for x in FIGURES if isinstance(x, (int, float))], k=random.randrange(40)
            )
        row["status"] = random.choice(("ok", "ok", "ok", "oom", "crashed"))
        row["message"] = random.choice((None, "", "\x1b[2J", "x" * 9_000, "<b>", "a\nb"))
        row["case"][random.choice(("seed", "batch_size", "num_classes", "image_size"))] = random.choice(
            (0, 1, 2**62, -5)
        )
    return b"\n".join(json.dumps(record).encode() for record in records) + b"\n"


_WATCHED: list[Path] = []  # the folder outside of which nothing may be opened, while there is one
SCRATCH = os.path.join(tempfile.gettempdir(), "tmp")  # as `tempfile` names its files
_ALLOWED = (
    *filter(None, sys.path),
    sys.prefix,
    sys.base_prefix,
    "/usr",
    "/proc",
    "/sys",
    "/dev",
    "/lib",
    str(ROOT),
    os.path.expanduser("~/.cache"),
)
_seen: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _WATCHED:
        return
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.fsdecode(arguments[0])
        path = os.path.normpath(os.path.join(os.getcwd(), path))
        inside = path.startswith(str(_WATCHED[0]))
        writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(arguments[2], int) else False
        allowed = ("/dev/null", SCRATCH) if writes else (*_ALLOWED, SCRATCH)
        if not inside and not path.startswith(allowed):
            _seen.append(f"{event} {path}")
    elif event in (
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "socket.connect",
        "socket.bind",
    ):
        _seen.append(f"{event} {arguments!r}"[:300])


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Inside, nothing is opened outside of a folder and of what is installed, and nothing is started or connected to."""
    sys.addaudithook(_audit)  # for good, but it looks only while something is watched
    _seen.clear()
    _WATCHED.append(folder)
    try:
        yield
    finally:
        _WATCHED.clear()
    assert not _seen, _seen[:5]


def go_through(kind: str, folder: Path, read: Callable[[int], None]) -> Counter[str]:
    """Read so many; how they ended, by the first word."""
    ended: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with watched(folder):
        for i in range(COUNTS[kind]):
            began = time.monotonic()
            try:
                read(i)
                ended["read"] += 1
            except UserError:
                ended["refused"] += 1
            assert time.monotonic() - began < LONGEST_SECONDS, i
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MOST_BYTES, grown
    print(f"{kind}: {dict(ended)}, {grown >> 20} MiB more at most")
    assert ended["refused"]
    assert ended["read"]
    return ended


@pytest.mark.slow
def test_mutated_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read, compared, merged, framed, shown, and every twentieth rendered."""
    originals = []
    for folder in sorted(REFERENCE.iterdir()):
        rows = (folder / ROWS).read_bytes().splitlines(keepends=True)
        originals.append(b"".join([*rows[:2], *rows[2::17]][:14]))
    journal = Journal(tmp_path / "other")
    journal.add_environment({**ENVIRONMENT, "environment_id": "f" * 12})
    journal.add_row(make_row(environment_id="f" * 12, probe="drift"))
    journal.close()

    def read(i: int) -> None:
        draw = random.Random(i)
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / ROWS).write_bytes(mutate_json(draw, draw.choice(originals)))
        run = read_run(folder)
        load_runs(folder)
        for row in run.rows:
            result_of(row)
            json.dumps(row.to_json(), allow_nan=False)
        for environment in run.environments.values():
            lines_of(environment)
        for baseline, current in ((folder, folder), (folder, tmp_path / "other")):
            try:
                found = compare_folders(baseline, current)
                found.lines()
                with redirect_stdout(io.StringIO()):
                    say_json(found.to_json())
            except UserError:
                continue
        output = tmp_path / "all"
        try:
            merge_runs([folder, tmp_path / "other"], output)
            (output / ROWS).unlink()
        except UserError:
            assert not output.exists() or not list(output.iterdir())
        Journal(folder, resume=True).close()
        if i % 20 == 0:
            write_report([folder], tmp_path / "report")

    with capsys.disabled():
        go_through("rows", tmp_path, read)


@pytest.mark.slow
def test_mutated_series(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.add_environment(ENVIRONMENT)
    rows = [make_row(series=name, repeat=i + 1) for i, name in enumerate(("a.json", "b.jsonl"))]
    journal.add_rows(rows)
    journal.close()
    (tmp_path / "run" / "series").mkdir()
    contents = [
        json.dumps({"level": ["block"] * 4, "name": list("abcd"), "x": [1.5, None, 2, 1e-9]}).encode() + b"\n",
        "".join(json.dumps(line) + "\n" for line in (COLUMNS, *([i, 0.5] + [None] * 9 for i in range(9)))).encode(),
    ]
    run = read_run(tmp_path / "run")

    def read(i: int) -> None:
        draw = random.Random(i)
        path = tmp_path / "run" / "series" / str(rows[i % 2].series)
        path.write_bytes(mutate_json(draw, contents[i % 2]))
        if i % 2:
            with SeriesFile(path, keep=9) as kept:
                kept.columns()
            path.write_bytes(mutate_json(draw, contents[1]))
        run.series(rows[i % 2])

    go_through("series", tmp_path, read)


@pytest.mark.slow
def test_mutated_checkpoints(tmp_path: Path) -> None:
    """Half of them with a digest that fits, as anybody can make one."""
    case = Case(model="tests.training.test_loop:plain(size=8)", batch_size=4, training_steps=12)
    workload = build_workload(case)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    more = {
        "scaler": scaler.state_dict(), "data": "abc", "options": {"a": 1}, "random": [{"cpu": torch.get_rng_state()}],
    }  # fmt: skip
    whole = sealed(state_of(workload, 3, **more))
    plain = io.BytesIO()
    torch.save(state_of(workload, 3, **more), plain)

    def read(i: int) -> None:
        draw = random.Random(i)
        path = tmp_path / "training.pt"
        path.write_bytes(mutate(draw, whole) if i % 2 else _digested(mutate(draw, plain.getvalue())))
        state, _ = Checkpoints(tmp_path, "training", most_bytes=64 << 20).newest()
        if state is not None:
            restore(state, workload, scaler=scaler, rank=0, data="abc", options={"a": 1})

    def _digested(content: bytes) -> bytes:
        return with_digest(content[:-2] + b"\0\0")

    go_through("checkpoints", tmp_path, read)


@pytest.mark.slow
def test_mutated_images(tmp_path: Path) -> None:
    contents = []
    for kind in ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        Image.effect_noise((32, 32), 60).convert("RGB").save(buffer, kind)
        contents.append(buffer.getvalue())

    def read(i: int) -> None:
        draw = random.Random(i)
        path = tmp_path / "0.png"
        path.write_bytes(mutate(draw, draw.choice(contents)))
        try:
            open_image(str(path))
        except UserError:
            raise
        except Exception as error:  # `ImageSet.decoded` names the file, whatever PIL raises
            raise UserError("as `ImageSet.decoded`") from error

    go_through("images", tmp_path, read)
