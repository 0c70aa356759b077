"""Queues of a type: instances come out, nothing else goes in, what does not fit is set aside."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypedDict

import attrs
import msgspec
import pytest

from leanmq import AsyncQueue, BulkSendError, Message, MessageError, Outgoing
from tests.contract.harness import Client, Harness, eventually


@attrs.frozen
class Item:
    name: str
    price: float = 0.0


@attrs.define
class Order:
    id: int
    items: list[Item] = attrs.field(factory=list)
    note: str | None = None


@dataclasses.dataclass
class Payment:
    id: int
    items: list[Item] = dataclasses.field(default_factory=list)
    note: str | None = None


class Parcel(msgspec.Struct):
    id: int
    items: list[Item] = []
    note: str | None = None


class Row(TypedDict):
    id: int
    note: str | None


class Invalid(ValueError):
    """As pydantic's ValidationError: it quotes what it was given, unless told not to."""

    def __init__(self, row: dict[str, Any], value: object) -> None:
        super().__init__(f"1 validation error [input_value={value!r}]")
        self.row = {**row, "msg": f"bad: {value!r}", "input": value}

    def errors(self, *, include_input: bool = True, **_: bool) -> list[dict[str, Any]]:
        return [{k: v for k, v in self.row.items() if include_input or k != "input"}]


class Model:
    """What LeanMQ uses of a pydantic model."""

    def __init__(self, id: int, note: str | None = None) -> None:
        self.id, self.note = id, note

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and (self.id, self.note) == (other.id, other.note)

    def model_dump_json(self) -> str:
        return json.dumps({"id": self.id, "note": self.note})

    @classmethod
    def model_validate_json(cls, body: bytes) -> Model:
        try:
            fields = json.loads(body)
        except ValueError as error:
            raise Invalid({"loc": (), "type": "json_invalid"}, body) from error
        if not isinstance(fields, dict) or not isinstance(fields.get("id"), int):
            raise Invalid({"loc": ("id",), "type": "int_type"}, fields)
        return cls(fields["id"], fields.get("note"))


TYPES: dict[str, tuple[Any, Any]] = {
    "attrs": (Order, Order(7, [Item("tea", 2.5)], "žlutý \x00")),
    "dataclass": (Payment, Payment(7, [Item("tea", 2.5)], "žlutý \x00")),
    "struct": (Parcel, Parcel(7, [Item("tea", 2.5)], "žlutý \x00")),
    "typed-dict": (Row, {"id": 7, "note": "žlutý \x00"}),
    "list": (list[int], [1, 2, 3]),
    "model": (Model, Model(7, "žlutý \x00")),
}
# Payloads become bytes and back above the seam, so in detail that is tested on one subject.
once = pytest.mark.on("memory")
every_type = pytest.mark.parametrize("kind", TYPES)

# What none of the types above can be, and what they have in common.
STRANGE: tuple[Any, ...] = ({"id": "s3cret"}, "s3cret", None, {"note": "s3cret"}, 1.5, object())


async def died(queue: AsyncQueue, count: int = 1) -> list[Message[Any]]:
    """Dead letters of the queue, once there are so many."""

    async def there() -> bool:
        await queue.get_messages()
        return (await queue.dlq.get_info()).message_count >= count

    await eventually(there, within=5)
    return await queue.dlq.get_messages()


# --- what is of the type


@pytest.mark.in_detail
@every_type
async def test_what_is_received_is_an_instance(mq: Client, kind: str) -> None:
    wanted, payload = TYPES[kind]
    queue = mq.queue("orders", type=wanted)
    await queue.send_message(payload)

    [message] = await queue.get_messages()

    assert message.data == payload
    assert type(message.data) is type(payload)
    assert await queue.acknowledge_messages(message) == 1


@pytest.mark.in_detail
@every_type
async def test_every_way_in_and_out_knows_the_type(mq: Client, kind: str) -> None:
    wanted, payload = TYPES[kind]
    queue = mq.queue("orders", type=wanted, slot="shop")

    await queue.send_messages([payload, Outgoing(payload, key="k")])
    async with mq.transaction() as tx:
        tx.send_message(queue, payload)
    assert [m.data for m in await queue.peek_messages()] == [payload] * 3
    assert [m.data for m in await queue.get_messages()] == [payload] * 3
    assert [m.data for m in await queue.pending_messages()] == [payload] * 3
    assert [m.data for m in await queue.peek_messages(ids=tx.ids)] == [payload]


async def test_a_key_can_be_made_from_an_instance(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", type=Order)
    await queue.send_messages([Order(1), Order(2)], key=lambda order: f"order {order.id}")

    keys = [m.key for m in await queue.get_messages()]
    assert harness.in_order(keys) == ["order 1", "order 2"]


@pytest.mark.in_detail
@every_type
async def test_dead_letters_of_a_typed_queue_are_instances_too(mq: Client, kind: str) -> None:
    wanted, payload = TYPES[kind]
    queue = mq.queue("orders", type=wanted)
    await queue.send_message(payload)
    await queue.move_to_dlq(await queue.get_messages(), "why")

    assert [m.data for m in await queue.dlq.peek_messages()] == [payload]
    [dead] = await queue.dlq.get_messages()
    assert (dead.data, dead.error) == (payload, "why")
    assert await queue.dlq.requeue_messages(dead) == 1
    assert [m.data for m in await queue.get_messages()] == [payload]


async def test_an_instance_is_stored_as_plain_json(mq: Client) -> None:
    await mq.queue("orders", type=Order).send_message(Order(7, [Item("tea", 2.5)]))

    [message] = await mq.queue("orders").get_messages()

    assert message.data == {"id": 7, "items": [{"name": "tea", "price": 2.5}], "note": None}


@once
async def test_json_of_others_becomes_an_instance(mq: Client) -> None:
    await mq.queue("orders").send_message({"id": 7, "of a later version": 1})

    [message] = await mq.queue("orders", type=Order).get_messages()

    assert message.data == Order(7)


@once
async def test_the_type_is_of_the_handle_and_not_of_the_queue(mq: Client) -> None:
    for kind in ("attrs", "dataclass", "struct"):
        wanted, payload = TYPES[kind]
        await mq.queue("orders").send_message({"id": 7, "items": [], "note": None})
        [message] = await mq.queue("orders", type=wanted).get_messages()
        assert message.data == type(payload)(7)


# --- what is not


@pytest.mark.in_detail
@every_type
async def test_something_else_is_refused_and_nothing_is_stored(mq: Client, kind: str) -> None:
    wanted, payload = TYPES[kind]
    queue = mq.queue("orders", type=wanted, slot="shop")
    tx = mq.transaction()
    tx.send_message(queue, payload)

    for strange in STRANGE:
        with pytest.raises(MessageError) as refused:
            await queue.send_message(strange)
        with pytest.raises(MessageError, match="item 1"):
            await queue.send_messages([payload, strange])
        with pytest.raises(MessageError):
            tx.send_message(queue, strange)
        assert refused.value.queue == "orders"
        assert "s3cret" not in str(refused.value)

    assert (await queue.get_info()).message_count == 0


@once
@pytest.mark.parametrize("kind", ["attrs", "dataclass", "struct", "model"])
async def test_an_instance_of_another_class_is_told_by_its_name(mq: Client, kind: str) -> None:
    wanted, _ = TYPES[kind]
    queue = mq.queue("orders", type=wanted)

    with pytest.raises(MessageError, match=rf"of type Item, .*type={wanted.__name__}; send one"):
        await queue.send_message(Item("tea"))


WRONG: Any = "7"


@once
@pytest.mark.parametrize(
    ("wanted", "payload"),
    [
        (Order, Order(WRONG)),
        (Payment, Payment(WRONG)),
        (Parcel, Parcel(WRONG)),
        (Row, {"id": WRONG, "note": None}),
        (list[int], [WRONG]),
    ],
    ids=repr,
)
async def test_an_instance_that_no_consumer_could_read_is_refused(
    mq: Client, wanted: Any, payload: Any
) -> None:
    queue = mq.queue("orders", type=wanted)

    with pytest.raises(MessageError, match="Expected `int`, got `str`"):
        await queue.send_message(payload)

    assert (await queue.get_info()).message_count == 0


async def test_a_bulk_send_tells_which_item_is_of_another_type(mq: Client) -> None:
    queue = mq.queue("orders", type=Order)
    chunk = (await mq.open()).best_batch
    bad = chunk + 100

    with pytest.raises(BulkSendError, match=f"item {bad}") as stopped:
        await queue.send_messages([*map(Order, range(bad)), {"id": 600}, Order(601)])

    assert list(stopped.value.confirmed) == list(range(chunk))
    assert isinstance(stopped.value.__cause__, MessageError)


@pytest.mark.in_detail
@every_type
async def test_what_does_not_fit_becomes_a_dead_letter_with_the_reason(
    mq: Client, kind: str
) -> None:
    wanted, payload = TYPES[kind]
    queue = mq.queue("orders", type=wanted)
    misfit: Any = ["s3cret"] if kind == "list" else {"id": "s3cret", "note": "s3cret"}
    sent = await mq.queue("orders").send_message(misfit)
    await queue.send_message(payload)

    assert [m.data for m in await queue.get_messages()] == [payload]
    [dead] = await died(queue)

    assert (dead.id, dead.data) == (sent, misfit)
    assert dead.error is not None
    assert dead.error.startswith("undecodable: no ")
    assert ("$[0]" if kind == "list" else "id") in dead.error
    assert "s3cret" not in dead.error
    assert [m.data for m in await mq.queue("orders").dlq.peek_messages(ids=sent)] == [misfit]
    assert await queue.dlq.acknowledge_messages(dead) == 1


@once
async def test_the_reason_names_the_class_and_the_field(mq: Client) -> None:
    queue = mq.queue("orders", type=Order)
    misfits: list[Any] = [
        {"items": []},
        {"id": 1, "items": [{"name": "tea"}, {"name": 2}]},
        [1],
    ]
    await mq.queue("orders").send_messages(misfits)

    errors = [dead.error for dead in await died(queue, 3)]

    assert sorted(map(str, errors)) == [
        "undecodable: no Order: Expected `object`, got `array`",
        "undecodable: no Order: Expected `str`, got `int` - at `$.items[1].name`",
        "undecodable: no Order: Object missing required field `id`",
    ]


@attrs.define
class Guarded:
    id: int

    def __attrs_post_init__(self) -> None:
        if self.id < 0:
            raise ValueError(f"{self.id} - at `{self.id}`")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: int
    level: int | None = None


@once
@pytest.mark.parametrize(
    ("wanted", "misfit"),
    [
        (Guarded, {"id": -4711}),
        (list[Guarded], [{"id": -4711}]),
        (Strict, {"id": 1, "4711": 1}),
        (dict[str, int], {"4711": "x"}),
        (Model, {"id": "4711"}),
    ],
)
async def test_no_reason_ever_quotes_the_payload(mq: Client, wanted: Any, misfit: Any) -> None:
    queue = mq.queue("orders", type=wanted)
    await mq.queue("orders").send_message(misfit)

    [dead] = await died(queue)

    assert dead.data == misfit
    assert dead.error is not None
    assert dead.error.startswith("undecodable: no ")
    assert "4711" not in dead.error


@pytest.mark.in_detail
@every_type
async def test_what_is_no_json_at_all_is_a_dead_letter_of_a_typed_queue_too(
    mq: Client, harness: Harness, kind: str
) -> None:
    wanted, _ = TYPES[kind]
    queue = mq.queue("orders", type=wanted)
    await queue.declare()
    await harness.inject("orders", b"\xff{not json")

    [dead] = await died(queue)

    assert dead.data == b"\xff{not json"
    assert "not json" not in str(dead.error)
    assert [m.data for m in await queue.dlq.pending_messages()] == [b"\xff{not json"]


async def test_what_does_not_fit_can_be_looked_at_where_it_waits(mq: Client) -> None:
    await mq.queue("orders").send_message({"id": "none"})
    queue = mq.queue("orders", type=Order)

    [seen] = await queue.peek_messages()

    assert seen.data == {"id": "none"}
    assert (await queue.dlq.get_info()).message_count == 0


async def test_a_queue_called_by_its_name_in_a_transaction_takes_any_json(mq: Client) -> None:
    queue = mq.queue("orders", type=Order, slot="shop")
    async with mq.transaction() as tx:
        tx.send_message(queue, Order(1))
        tx.send_message("orders", {"id": 2})
        tx.send_message(queue, Order(3))

    assert [m.data.id for m in await queue.get_messages()] == [1, 2, 3]


# --- what can be no type


class Arbitrary:
    """No method of it makes one from JSON."""

    def __repr__(self) -> str:  # the same in every process: it names tests
        return "Arbitrary()"


@attrs.define
class Holder:
    inner: Arbitrary


class Tree(msgspec.Struct):
    """A type that holds itself is one."""

    left: Tree | None = None
    right: Tree | None = None


@once
@pytest.mark.parametrize(
    "wanted",
    [Arbitrary, object, Holder, list[Arbitrary], dict[str, Holder], Holder | None, Arbitrary(), 7],
    ids=lambda wanted: "an instance" if isinstance(wanted, Arbitrary) else repr(wanted),
)
async def test_a_type_that_json_cannot_make_is_refused_at_once(mq: Client, wanted: Any) -> None:
    with pytest.raises(TypeError, match=r"a queue cannot have the type .*use an attrs class"):
        mq.queue("orders", type=wanted)


@once
@pytest.mark.parametrize("wanted", [None, Any], ids=repr)
async def test_no_type_is_any_json(mq: Client, wanted: Any) -> None:
    queue = mq.queue("orders", type=wanted)
    await queue.send_messages([1, "a", {"b": None}])

    assert [m.data for m in await queue.get_messages()] == [1, "a", {"b": None}]


@once
@pytest.mark.parametrize(
    ("wanted", "payload"),
    [
        (Tree, Tree(Tree(), Tree(Tree()))),
        (int, 7),
        (Order | None, None),
        (Order | None, Order(1)),
        (dict[str, Order], {"a": Order(1)}),
    ],
    ids=repr,
)
async def test_types_made_of_types_are_types(mq: Client, wanted: Any, payload: Any) -> None:
    queue = mq.queue("orders", type=wanted)
    await queue.send_message(payload)

    [message] = await queue.get_messages()

    assert message.data == payload
    assert type(message.data) is type(payload)


@once
async def test_true_is_no_number(mq: Client) -> None:
    with pytest.raises(MessageError, match="Expected `int`, got `bool`"):
        await mq.queue("orders", type=int).send_message(True)
