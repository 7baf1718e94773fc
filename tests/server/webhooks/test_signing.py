"""Signatures that any library of the specification accepts, and secrets that can make them."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest

from server.webhooks.signing import new_secret, require_secret, signed_headers
from tests.server.webhooks.events import SECRET


def test_the_specifications_vector() -> None:
    """The example that libraries of the specification are tested with."""
    headers = signed_headers(
        [SECRET], event_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_every_secret_signs() -> None:
    """While secrets change there is one signature for each, as each alone would have made it."""
    other = new_secret()

    def signature(*signers: str) -> str:
        return signed_headers(signers, event_id="evt_1", timestamp=1, body=b"{}")["webhook-signature"]

    assert signature(other, SECRET) == f"{signature(other)} {signature(SECRET)}"


def test_new_secrets_differ_and_can_sign() -> None:
    """The command for it prints one of them."""
    printed = subprocess.run(
        [sys.executable, "-m", "server.webhooks.signing"], capture_output=True, text=True, check=True
    )
    made = {new_secret(), new_secret(), printed.stdout.strip()}
    assert len(made) == 3
    assert all(require_secret(text) == text for text in made)


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "hunter2", "whsec_hunter2", "whsec_" + "!" * 40, "whsec_" + base64.b64encode(bytes(23)).decode(),
     "whsec_" + base64.b64encode(bytes(65)).decode(), SECRET + "\n", "WHSEC_" + SECRET[6:], "whsec_\u00e4" + "a" * 39],
)  # fmt: skip
def test_what_cannot_sign_is_refused_without_being_repeated(text: str) -> None:
    """Too short, too long, no base64 or another kind of key."""
    with pytest.raises(ValueError, match="a webhook secret is whsec_") as caught:
        require_secret(text)
    assert "hunter2" not in str(caught.value)


def test_nothing_is_sent_unsigned() -> None:
    """Without a secret there are no headers."""
    with pytest.raises(ValueError, match="no secret to sign with"):
        signed_headers([], event_id="evt_1", timestamp=1, body=b"{}")
