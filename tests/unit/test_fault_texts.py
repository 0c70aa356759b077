"""What an error says of a reply: its code, whatever redis-py leaves of that, and no noise."""

from __future__ import annotations

import pytest

from leanmq.errors import AccessError
from tests.unit.test_wire_errors import WHERE, ours, refusal


@pytest.mark.parametrize(
    "noise",
    [
        ". script: 804983d4a6c82491be8534c6826a85fa127ba11d, on @user_script:25.",
        " script: 804983d4a6c82491be8534c6826a85fa127ba11d, on @user_script:25.",
        ", with args beginning with: 'hunter2' ",
        ".",
    ],
)
@pytest.mark.parametrize("code", ["OOM", "NOREPLICAS", "MISCONF"])
def test_a_reply_is_told_without_what_helps_nobody(code: str, noise: str) -> None:
    error = ours(refusal(f"{code} no room{noise}"))

    assert str(error).startswith(f"server {WHERE} refused: {code} no room; ")


def test_a_reply_without_a_code_of_its_own_is_an_answer_all_the_same() -> None:
    for reply in ("ERR max number of clients reached", "ERR syntax error", "ERR x"):
        error = ours(refusal(reply))

        assert error.code == "ERR"
        assert f"refused: {reply.removeprefix('ERR ')};" in str(error)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS"),
        ("NOAUTH Authentication required.", "NOAUTH"),
        ("NOPERM User al has no permissions to run the 'set' command", "NOPERM"),
        (
            "ERR ACL failure in script: User al has no permissions to run the 'set' command",
            "NOPERM",
        ),
        ("ERR The user executing the script can't run this command or subcommand", "NOPERM"),
        ("ERR The user executing the script can't access at least one of the keys", "NOPERM"),
    ],
)
def test_a_refused_user_learns_the_code_from_every_server_and_redis_py(
    reply: str, code: str
) -> None:
    error = ours(refusal(reply))

    assert (type(error), error.code) == (AccessError, code)
    assert f"refused: {code} {reply.partition(' ')[2].rstrip('.')};" in str(error)
