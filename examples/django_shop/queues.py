"""The queues of the shop. Nothing is connected before the first use, so this may be imported
anywhere; each worker process of the web server has connections of its own."""

from __future__ import annotations

from typing import TypedDict

from django.conf import settings

import leanmq


class Order(TypedDict):
    """What is sent."""

    id: int
    item: str


mq = leanmq.LeanMQ(settings.LEANMQ_URL)
orders = mq.queue("orders", type=Order, max_deliveries=3)
