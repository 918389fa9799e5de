"""Several Ray nodes build the files that one process builds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import data_files, run_build

ray = pytest.importorskip("ray")

CLUSTER = """
import os, subprocess, sys, tempfile

with tempfile.TemporaryDirectory(prefix="ule-", dir="/tmp") as home:
    os.environ["RAY_TMPDIR"] = home
    os.mkdir(os.path.join(home, "ray"))  # only `ray start` makes it
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    cluster.wait_for_nodes()
    try:
        command = [sys.executable, "-m", "ule_datasets.cli.build", *sys.argv[1:]]
        done = subprocess.run(command, env={**os.environ, "RAY_ADDRESS": cluster.address})
    finally:
        cluster.shutdown()
sys.exit(done.returncode)
"""


@pytest.mark.slow
def test_a_build_on_two_nodes_gives_the_same_files(tmp_path: Path) -> None:
    trial = ("ops-digits", "--limit", "20")
    assert run_build(*trial, "--out", tmp_path / "one").code == 0
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    arguments = [*trial, "--out", str(tmp_path / "two"), "--executor", "ray", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert data_files(tmp_path / "two") == data_files(tmp_path / "one")
