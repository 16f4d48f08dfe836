"""Two nodes, each with an address and a launcher of its own, give what one process gives."""

import json
import socket
import subprocess
import sys

import pytest
import torch
from processes import process_environment
from small_run import make_config, make_data

from lightning_expedite.cli import main

pytestmark = pytest.mark.promise("two-nodes")
EVIT = {"class_path": "EViT", "init_args": {"locations": [2], "keep_rate": 0.6}}
COUNTS = ("images", "complete", "windows", "windows_unreduced", "scores", "per_class", "intersection", "union", "label")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start_nodes(folder, words):
    """Start a run on two nodes, which are loopback addresses of this machine."""
    port, nodes = free_port(), []
    for number in range(2):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        launcher += ["--node_rank", str(number), "--master_addr", "127.0.0.1", "--master_port", str(port)]
        launcher += ["--local_addr", f"127.0.0.{number + 1}"]
        more = ["--trainer.devices", 1, "--trainer.num_nodes", 2, "--trainer.strategy", "ddp"]
        command = [*launcher, "-m", "lightning_expedite", *words, *more]
        nodes.append(
            subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=process_environment(GLOO_SOCKET_IFNAME="lo"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return nodes


def test_two_nodes_give_the_results_of_one_process(tmp_path):
    config = make_config(make_data(tmp_path, 3), reducer=EVIT)
    words = ["test", "--config", str(config)]
    nodes = start_nodes(tmp_path, [*words, "--output", "two"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes
    assert main([*words, "--output", str(tmp_path / "one")]) == 0
    torch.set_num_threads(threads)
    for node in nodes:
        printed, _ = node.communicate(timeout=300)
        assert node.returncode == 0, printed
    two, one = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("two", "one"))
    assert two["environment"]["processes"] == 2
    assert [two[name] for name in COUNTS] == [one[name] for name in COUNTS]
    assert (tmp_path / "two/images.jsonl").read_text() == (tmp_path / "one/images.jsonl").read_text()
