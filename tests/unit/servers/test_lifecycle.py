"""The topologies of a process: started once, ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import binary, running
from tests.support.servers import (
    RedisProcess,
    SingleTopology,
)
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_topology_is_started_once(single: SingleTopology) -> None:
    assert running.get("redis") is single


def test_stopping_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    topology = SingleTopology()
    topology.start()
    (node,) = topology.nodes
    pid, folder = node.pid, node.directory
    node.freeze()
    topology.stop()
    assert pid is not None
    assert not alive(pid)
    assert not folder.exists()
    topology.stop()


def test_servers_outlive_the_thread_that_started_them() -> None:
    topology = SingleTopology()
    thread = threading.Thread(target=topology.start)
    thread.start()
    thread.join()
    try:
        assert not threading.Event().wait(0.1)
        assert topology.nodes[0].ping()
    finally:
        topology.stop()


def test_servers_die_with_a_test_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from tests.support import running\n"
        "print(running.get('redis').nodes[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": _python_path()}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert alive(pid)
        finally:
            process.kill()
    wait_until(lambda: not alive(pid), 5, f"the end of server {pid}")


def test_servers_end_with_a_test_process_that_exits_and_outlive_its_forked_child(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys\n"
        "from tests.support import running\n"
        "topology = running.get('redis')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "assert topology.nodes[0].ping()\n"
        "topology.kill_connections()\n"
        "print(topology.nodes[0].pid)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": _python_path()}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    wait_until(lambda: not alive(int(ended.stdout)), 5, "the end of the server")
    assert list(tmp_path.iterdir()) == []


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def test_a_server_that_ignores_its_end_is_ended(tmp_path: Path) -> None:
    node = RedisProcess("stuck", binary.require_server(), tmp_path / "stuck", proxied=False)
    try:
        node.configure([])
        node.start()
        assert node.pid is not None
        os.kill(node.pid, signal.SIGSTOP)  # Behind its back, so that SIGTERM stays pending.
        with pytest.raises(TimeoutError, match="outlived"):
            node._end(signal.SIGTERM, 0.2)
        assert not node.alive
    finally:
        node.close()
