"""Puts orders into the queue, and tells how many there are."""

from __future__ import annotations

import msgspec
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from examples.django_shop.queues import Order, orders


@csrf_exempt
def place(request: HttpRequest) -> JsonResponse:
    """Accept an order, or (GET) tell how many are waiting and how many have failed."""
    if request.method == "GET":
        counts = {"waiting": orders.get_info(), "failed": orders.dlq.get_info()}
        return JsonResponse({name: info.message_count for name, info in counts.items()})
    try:
        order = msgspec.json.decode(request.body, type=Order)
    except msgspec.ValidationError as error:
        return JsonResponse({"error": str(error)}, status=400)
    with transaction.atomic():
        # Your models are saved here. The message goes out when they are, and not before.
        transaction.on_commit(lambda: send(order))
    return JsonResponse({"order": order["id"]}, status=202)


def send(order: Order) -> None:
    """A request that is made twice is stored once."""
    orders.send_message(order, dedup_id=f"order-{order['id']}")


urlpatterns = [path("orders", place)]
