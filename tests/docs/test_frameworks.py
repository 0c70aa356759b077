"""The shops in FastAPI and Django do what their page says, and the page shows their code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from io import StringIO
from types import ModuleType
from typing import Any

import pytest

from tests.contract.harness import eventually
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "frameworks.md").read_text("utf-8")


def framework(name: str) -> ModuleType:
    """The framework; without it the test is skipped, in CI it fails."""
    if os.environ.get("CI") == "true":
        return __import__(name)
    module: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed")
    return module


def test_the_page_shows_the_code_as_it_is() -> None:
    blocks = re.findall(
        r"^```python\n# Not run: this is (\S+), [^\n]*\n(.*?)^```$", PAGE, re.M | re.S
    )

    assert len(blocks) == PAGE.count("```python") > 3
    for name, code in blocks:
        assert code.strip() in (ROOT / name).read_text("utf-8"), name


# --- FastAPI


@pytest.fixture
async def fastapi_client() -> AsyncIterator[Any]:
    framework("fastapi")
    httpx = framework("httpx")
    from examples.fastapi_shop import app

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        yield client


async def test_fastapi_ships_in_the_background_and_puts_aside_what_fails(
    fastapi_client: Any,
) -> None:
    for number, item in enumerate(["tea", "unicorn", "coffee"]):
        answer = await fastapi_client.post("/orders", json={"id": number, "item": item})
        assert answer.status_code == 202, answer.text

    async def all_done() -> bool:
        counts = (await fastapi_client.get("/orders")).json()
        return bool(counts == {"waiting": 0, "failed": 1})

    await eventually(all_done, within=10, what="the end of the work")


async def test_fastapi_stores_an_order_that_is_placed_twice_once(fastapi_client: Any) -> None:
    order = {"id": 7, "item": "tea"}

    first = await fastapi_client.post("/orders", json=order)
    again = await fastapi_client.post("/orders", json=order)

    assert first.json() == again.json()
    assert set(first.json()) == {"message"}


async def test_fastapi_refuses_what_is_no_order(fastapi_client: Any) -> None:
    answer = await fastapi_client.post("/orders", json={"id": "seven"})

    assert answer.status_code == 422


# --- Django


@pytest.fixture(scope="module")
def django_shop() -> Any:
    django = framework("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            LEANMQ_URL="memory://",
            ALLOWED_HOSTS=["testserver"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["examples.django_shop"],
            ROOT_URLCONF="examples.django_shop.views",
        )
        django.setup()
    from django.db import connections

    from examples.django_shop import queues

    yield queues
    queues.mq.close()
    connections.close_all()


@pytest.fixture
def django_client(django_shop: Any) -> Any:
    from django.test import Client

    django_shop.orders.purge()
    django_shop.orders.dlq.purge()
    return Client()


def place(client: Any, order: object) -> Any:
    return client.post("/orders", json.dumps(order), content_type="application/json")


def test_django_ships_by_a_command_and_puts_aside_what_fails(django_client: Any) -> None:
    from django.core.management import call_command

    for number, item in enumerate(["tea", "unicorn"]):
        assert place(django_client, {"id": number, "item": item}).status_code == 202
    assert django_client.get("/orders").json() == {"waiting": 2, "failed": 0}
    told, complained = StringIO(), StringIO()

    call_command("ship", timeout=0.2, stdout=told, stderr=complained)

    assert told.getvalue() == "shipped order 0\n"
    assert complained.getvalue() == "order 1: not in stock\n" * 3
    assert django_client.get("/orders").json() == {"waiting": 0, "failed": 1}


def test_django_refuses_what_is_no_order(django_client: Any) -> None:
    answer = place(django_client, {"id": "seven", "item": "tea"})

    assert answer.status_code == 400
    assert "id" in answer.json()["error"]
    assert django_client.get("/orders").json() == {"waiting": 0, "failed": 0}


def test_django_sends_nothing_if_the_database_does_not_commit(django_client: Any) -> None:
    from django.db import transaction

    def place_and_fail() -> None:
        with transaction.atomic():
            assert place(django_client, {"id": 9, "item": "tea"}).status_code == 202
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        place_and_fail()

    assert django_client.get("/orders").json() == {"waiting": 0, "failed": 0}
