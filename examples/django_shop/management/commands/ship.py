"""``manage.py ship``: ships orders until it is stopped. Start as many as you need."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from examples.django_shop.queues import Order, orders


class Command(BaseCommand):
    """The command."""

    help = "Ship orders."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--timeout", type=float, help="idle seconds, then it ends")

    def handle(self, *args: Any, timeout: float | None = None, **options: Any) -> None:
        for message in orders.consume(timeout=timeout):
            close_old_connections()  # to the database, as before each request
            try:
                with orders.processing(message) as order:
                    self.ship(order)
            except LookupError as error:  # it comes again, and ends as a dead letter
                self.stderr.write(f"order {message.data['id']}: {error}")

    def ship(self, order: Order) -> None:
        if order["item"] == "unicorn":
            raise LookupError("not in stock")
        self.stdout.write(f"shipped order {order['id']}")
