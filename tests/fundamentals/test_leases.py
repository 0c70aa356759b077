"""A message that was received is leased: it belongs to its consumer, for a time."""

from __future__ import annotations

from leanmq import LeanMQ


def test_a_message_that_is_not_acknowledged_comes_again() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders", lease=0.2)
        orders.send_message("forgotten")

        [first] = orders.get_messages()
        [second] = orders.get_messages(timeout=5)  # as soon as the lease has ended

        assert second.id == first.id
        assert (first.delivery_count, second.delivery_count) == (1, 2)


def test_a_lease_is_extended_while_the_work_takes_longer() -> None:
    with LeanMQ("memory://") as mq:
        orders = mq.queue("orders", lease=1.4)
        orders.send_message("long work")
        [message] = orders.get_messages()

        for _ in range(3):  # for longer than a lease, in steps that are shorter
            assert orders.get_messages(timeout=0.5) == []  # nobody else gets it
            assert orders.extend_messages(message) == 1

        assert orders.acknowledge_messages(message) == 1


def test_what_a_dead_consumer_held_goes_to_another() -> None:
    with LeanMQ("memory://shop") as mq:
        orders = mq.queue("orders", lease=0.2)
        orders.send_message("survives")
        with LeanMQ("memory://shop") as unlucky:
            assert len(unlucky.queue("orders").get_messages()) == 1
            # It ends here, without a word about its message.

        [message] = orders.get_messages(timeout=5)

        assert message.data == "survives"
        assert message.delivery_count == 2
