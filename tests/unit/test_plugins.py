"""The entry-point group ``leanmq.backends``: an installed package adds a URL scheme."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leanmq import LeanMQ

PLUGIN = Path(__file__).parents[1] / "support" / "plugin"


def install(site: Path, name: str, entry_points: str) -> None:
    """Do what an installer does with a package whose modules are there: write its metadata."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[leanmq.backends]\n{entry_points}\n", "utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages that this process sees."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


USE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import leanmq

with leanmq.LeanMQ("echo://ann:hunter2@here?x=1", prefix="mine:") as other:
    assert repr(other) == "<LeanMQ echo://here>", other

mq = leanmq.LeanMQ("echo://here", prefix="mine:")
mq.queue("orders").send_message({"id": 7})
assert mq._backend.prefix == "mine:"

async def receive():
    async with leanmq.AsyncLeanMQ("echo://here", prefix="mine:") as mq:
        return [message.data for message in await mq.queue("orders").get_messages()]

assert asyncio.run(receive()) == [{"id": 7}]
mq.close()
"""


def test_an_installed_package_adds_a_scheme_for_both_worlds(tmp_path: Path) -> None:
    shutil.copy(PLUGIN / "leanmq_echo.py", tmp_path)
    install(tmp_path, "leanmq-echo", "echo = leanmq_echo")

    subprocess.run([sys.executable, "-W", "error", "-c", USE, tmp_path], check=True, timeout=60)


def test_an_error_about_schemes_names_those_that_packages_add(site: Path) -> None:
    install(site, "leanmq-echo", "echo = leanmq_echo")

    with pytest.raises(ValueError, match=r"'eco' is unknown; use one of echo, memory, redis"):
        LeanMQ("eco://here")


def test_a_package_cannot_take_a_scheme_of_ours(site: Path) -> None:
    install(site, "leanmq-evil", "memory = no_such_module")

    with LeanMQ("memory://") as mq:
        assert mq.queue("orders").send_message(1)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_module", ModuleNotFoundError),
        ("1 / 0", ZeroDivisionError),
        ("", AttributeError),  # it has no ``factory``
    ],
    ids=["import", "crash", "nothing there"],
)
def test_a_package_that_cannot_be_loaded_is_named_and_the_cause_is_kept(
    site: Path, monkeypatch: pytest.MonkeyPatch, code: str, cause: type[Exception]
) -> None:
    (site / "leanmq_broken.py").write_text(code, "utf-8")
    install(site, "leanmq-broken", "broken = leanmq_broken:factory")
    monkeypatch.delitem(sys.modules, "leanmq_broken", raising=False)

    with pytest.raises(ImportError, match="'broken' is that of package 'leanmq-broken'") as broken:
        LeanMQ("broken://ann:hunter2@here")

    assert isinstance(broken.value.__cause__, cause)
    assert "hunter2" not in str(broken.value)
    assert str(broken.value).endswith("mend or uninstall the package")


def test_what_a_package_has_must_be_able_to_make_backends(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "leanmq_half.py").write_text("def backend(url, options): ...", "utf-8")
    install(site, "leanmq-half", "half = leanmq_half")
    monkeypatch.delitem(sys.modules, "leanmq_half", raising=False)

    with pytest.raises(TypeError, match=r"'leanmq-half', .* backend and async_backend"):
        LeanMQ("half://here")
