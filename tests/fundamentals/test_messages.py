"""Sending, receiving, acknowledging. Read these first; each test stands for itself."""

from __future__ import annotations

import threading

from leanmq import LeanMQ, Message


def test_what_is_sent_is_received() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders")

        message_id = orders.send_message({"id": 7, "item": "tea"})
        [message] = orders.get_messages()

        assert message.id == message_id
        assert message.data == {"id": 7, "item": "tea"}


def test_many_messages_are_sent_at_once_and_come_in_order() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders")

        orders.send_messages({"id": number} for number in range(100))
        messages = orders.get_messages(count=100)

        assert [message.data["id"] for message in messages] == list(range(100))


def test_a_message_that_was_handled_is_acknowledged_and_gone() -> None:
    shipped = []

    def ship(order: dict[str, int]) -> None:
        shipped.append(order["id"])

    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders")
        orders.send_messages([{"id": 1}, {"id": 2}])

        for message in orders.get_messages():
            ship(message.data)
            orders.acknowledge_messages(message)

        assert shipped == [1, 2]
        assert orders.get_info().message_count == 0


def test_a_consumer_waits_for_a_message() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders")
        received: list[Message] = []

        consumer = threading.Thread(
            target=lambda: received.extend(orders.get_messages(block=True, timeout=10))
        )
        consumer.start()
        orders.send_message("at last")
        consumer.join()

        assert [message.data for message in received] == ["at last"]
