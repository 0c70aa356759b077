"""A shop in FastAPI: requests put orders into a queue, a task of the same process ships them.

LEANMQ_URL=redis://localhost uvicorn examples.fastapi_shop:app
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

import leanmq


class Order(BaseModel):
    """What is posted, and what is sent."""

    id: int
    item: str


Orders = leanmq.AsyncQueue[Order]


async def ship(order: Order) -> None:
    """The work."""
    if order.item == "unicorn":
        raise LookupError("not in stock")


async def work(orders: Orders) -> None:
    """Ship orders, until the task is cancelled."""
    async for message in orders.consume():
        with contextlib.suppress(LookupError):  # it comes again, or is dead
            async with orders.processing(message) as order:
                await ship(order)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for as long as the application runs, in its event loop."""
    url = os.environ.get("LEANMQ_URL", "memory://")
    async with leanmq.AsyncLeanMQ(url) as mq:
        app.state.orders = mq.queue("orders", type=Order, max_deliveries=3)
        worker = asyncio.create_task(work(app.state.orders))
        yield
        worker.cancel()  # what it holds and has not shipped is given back
        with contextlib.suppress(asyncio.CancelledError):
            await worker


def queue(request: Request) -> Orders:
    """The queue, for those who depend on it."""
    orders: Orders = request.app.state.orders
    return orders


Queue = Annotated[Orders, Depends(queue)]
app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def place(order: Order, orders: Queue) -> dict[str, str]:
    """Accept an order. A request that is made twice is stored once."""
    try:
        message_id = await orders.send_message(order, dedup_id=f"order-{order.id}")
    except leanmq.QueueFullError:
        raise HTTPException(503, "too many orders; come back later") from None
    return {"message": message_id}


@app.get("/orders")
async def look(orders: Queue) -> dict[str, int]:
    """How many orders are still to be shipped, and how many cannot be."""
    waiting, failed = await orders.get_info(), await orders.dlq.get_info()
    return {"waiting": waiting.message_count, "failed": failed.message_count}
