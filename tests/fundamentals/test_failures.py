"""Work that fails: try again later, and give up in the end."""

from __future__ import annotations

import time

from leanmq import LeanMQ


def test_a_message_that_failed_is_retried_after_a_delay() -> None:
    attempts = []

    def call_a_moody_service(order: str) -> None:
        attempts.append(order)
        if len(attempts) == 1:
            raise TimeoutError("not now")

    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders")
        orders.send_message("tea")
        began = time.monotonic()

        while orders.get_info().message_count:
            for message in orders.get_messages(timeout=5):
                try:
                    call_a_moody_service(message.data)
                except TimeoutError:
                    orders.retry_messages(message, delay=0.3)
                else:
                    orders.acknowledge_messages(message)

        assert attempts == ["tea", "tea"]
        assert time.monotonic() - began >= 0.3


def test_a_message_that_always_fails_becomes_a_dead_letter() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders", max_deliveries=3)
        orders.send_message({"id": "no such customer"})

        attempts = 0
        while messages := orders.get_messages():
            attempts += 1
            orders.retry_messages(messages)

        assert attempts == 3
        [dead] = orders.dlq.get_messages()
        assert dead.data == {"id": "no such customer"}
        assert dead.error == "delivered 3 times of max_deliveries 3"


def test_a_hopeless_message_is_moved_to_the_dead_letters_and_sent_again_later() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders")
        orders.send_message({"id": 7, "customer": None})
        [message] = orders.get_messages()

        orders.move_to_dlq(message, reason="no customer")

        [dead] = orders.dlq.get_messages()
        assert (dead.id, dead.error) == (message.id, "no customer")
        orders.send_message({**dead.data, "customer": "Ada"})  # mended by hand
        orders.dlq.acknowledge_messages(dead)
        assert [m.data["customer"] for m in orders.get_messages()] == ["Ada"]
        assert orders.dlq.get_info().message_count == 0
