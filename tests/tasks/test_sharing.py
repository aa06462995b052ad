"""Work that is shared by processes, one of which is killed."""

import pathlib
import random
import subprocess
import sys
import time

import pytest

from tasks.sharing import claims

NUM_ITEMS = 40
# Logs what it begins and what it ends, one line each, which a kill cannot tear apart.
WORKER = """
import os, pathlib, random, sys, time
from tasks import sharing
sharing.POLL_SECONDS = 0.02
folder, worker = pathlib.Path(sys.argv[1]), sys.argv[2]
log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
done = lambda item: (folder / f"done{item}").exists()
(folder / f"ready{worker}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
for item in sharing.claims(range(40), folder / "locks", name=str, is_done=done):
    os.write(log, f"begin {item} {worker}\\n".encode())
    time.sleep(random.uniform(0, 0.04))
    (folder / f"done{item}").touch()
    os.write(log, f"end {item} {worker}\\n".encode())
"""


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_worker_loses_nothing_and_nothing_runs_twice(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(i)], cwd=root
        )
        for i in range(3)
    ]
    wait_until(lambda: len(list(tmp_path.glob("ready*"))) == 3)
    (tmp_path / "go").touch()
    log = tmp_path / "log"
    wait_until(lambda: log.exists() and " 0\n" in log.read_text())
    time.sleep(random.uniform(0, 0.1))
    workers[0].kill()
    assert [worker.wait(timeout=60) for worker in workers] == [-9, 0, 0]

    lines = [line.split() for line in log.read_text().splitlines()]
    begun, ended = (
        [(int(item), worker) for what, item, worker in lines if what == asked]
        for asked in ("begin", "end")
    )
    unfinished = {item for item, worker in set(begun) - set(ended) if worker == "0"}
    items = [item for item, _ in begun]
    assert len(unfinished) <= 1
    assert {item for item in items if items.count(item) > 1} <= unfinished
    assert sorted({item for item, _ in ended} | unfinished) == list(range(NUM_ITEMS))
    assert len(ended) == len({item for item, _ in ended})
    assert {worker for _, worker in ended} >= {"1", "2"}


def test_an_error_frees_the_item(tmp_path):
    def work():
        for item in claims("ab", tmp_path, name=str, is_done=lambda _: False):
            raise RuntimeError(item)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="a"):
            work()
