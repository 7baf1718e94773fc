"""Whatever is wrong with a request, the answer is a 4xx with its stable code, and tells nothing of the machine."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from typing import Any

import pytest

from server.api.errors import KINDS, MEDIA_TYPE
from tests.server.live import JSON, Gateway

GOOD: dict[str, Any] = {"prompt": "a red ball"}
LEAKS = re.compile(
    r"Traceback|\.py\b|/work|/tmp|/root|/home|site-packages|0x[0-9a-f]{6,}|unix:|redis|pydantic", re.IGNORECASE
)

# (name, body as it is sent, status, code, field)
BODIES: list[tuple[str, bytes, int, str, str | None]] = [
    ("empty", b"", 400, "invalid_json", None),
    ("blank", b"  \n", 400, "invalid_json", None),
    ("not json", b"prompt=a ball", 400, "invalid_json", None),
    ("cut off", b'{"prompt": "a ba', 400, "invalid_json", None),
    ("trailing", b'{"prompt": "a"} {}', 400, "invalid_json", None),
    ("single quotes", b"{'prompt': 'a'}", 400, "invalid_json", None),
    ("comment", b'{"prompt": "a" /* b */}', 400, "invalid_json", None),
    ("bom", b'\xef\xbb\xbf{"prompt": "a"}', 400, "invalid_json", None),
    ("latin-1", b'{"prompt": "caf\xe9"}', 400, "invalid_json", None),
    ("utf-16", '{"prompt": "a"}'.encode("utf-16"), 400, "invalid_json", None),
    ("overlong utf-8", b'{"prompt": "\xc0\xaf"}', 400, "invalid_json", None),
    ("random bytes", bytes(range(256)), 400, "invalid_json", None),
    ("raw control character", b'{"prompt": "a\x01b"}', 400, "invalid_json", None),
    ("repeated key", b'{"prompt": "a", "prompt": "b"}', 400, "invalid_json", None),
    ("half a pair", rb'{"prompt": "\ud83d"}', 400, "invalid_json", None),
    ("half a pair as key", rb'{"prompt": "a", "\udc00": 1}', 400, "invalid_json", None),
    ("NaN", b'{"prompt": "a", "guidance_scale": NaN}', 400, "invalid_json", None),
    ("Infinity", b'{"prompt": "a", "guidance_scale": -Infinity}', 400, "invalid_json", None),
    ("deep list", b"[" * 30_000 + b"]" * 30_000, 400, "invalid_json", None),
    ("deep object", b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "invalid_json", None),
    ("unclosed depth", b"[" * 60_000, 400, "invalid_json", None),
    ("many digits", b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400, "invalid_json", None),
    ("null", b"null", 422, "invalid_field", "body"),
    ("list", b"[]", 422, "invalid_field", "body"),
    ("string", b'"a red ball"', 422, "invalid_field", "body"),
    ("number", b"7", 422, "invalid_field", "body"),
    ("no prompt", b"{}", 422, "invalid_field", "prompt"),
    ("float overflow", b'{"prompt": "a", "guidance_scale": 1e999}', 422, "invalid_field", "guidance_scale"),
]

# Fields put on top of GOOD, and the field that must be named.
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": "  \t\n "}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": ["a"]}, "prompt"),
    ({"prompt": {"text": "a"}}, "prompt"),
    ({"prompt": "a" * 501}, "prompt"),
    ({"prompt": "a" * 5001}, "prompt"),
    ({"prompt": "a\x00b"}, "prompt"),
    ({"prompt": "a\x1b[31m"}, "prompt"),
    ({"prompt": "a\x7fb"}, "prompt"),
    ({"negative_prompt": 1}, "negative_prompt"),
    ({"negative_prompt": "\x00"}, "negative_prompt"),
    ({"negative_prompt": "a" * 501}, "negative_prompt"),
    ({"width": "64"}, "width"),
    ({"width": 64.0}, "width"),
    ({"width": 64.5}, "width"),
    ({"width": True}, "width"),
    ({"width": [64]}, "width"),
    ({"width": 0}, "width"),
    ({"width": -64}, "width"),
    ({"width": 15}, "width"),
    ({"width": 33}, "width"),
    ({"width": 112}, "width"),
    ({"width": 10**9}, "width"),
    ({"width": 10**400}, "width"),
    ({"height": 4097}, "height"),
    ({"height": 31}, "height"),
    ({"num_frames": 0}, "num_frames"),
    ({"num_frames": 8}, "num_frames"),
    ({"num_frames": 37}, "num_frames"),
    ({"num_frames": 1026}, "num_frames"),
    ({"num_frames": "9"}, "num_frames"),
    ({"fps": 0}, "fps"),
    ({"fps": 31}, "fps"),
    ({"fps": 121}, "fps"),
    ({"fps": 8.5}, "fps"),
    ({"num_inference_steps": 0}, "num_inference_steps"),
    ({"num_inference_steps": 51}, "num_inference_steps"),
    ({"num_inference_steps": 201}, "num_inference_steps"),
    ({"num_inference_steps": False}, "num_inference_steps"),
    ({"width": 96, "height": 96, "num_frames": 33, "num_inference_steps": 50}, "num_inference_steps"),
    ({"guidance_scale": -0.1}, "guidance_scale"),
    ({"guidance_scale": 20.1}, "guidance_scale"),
    ({"guidance_scale": 51}, "guidance_scale"),
    ({"guidance_scale": "3"}, "guidance_scale"),
    ({"guidance_scale": True}, "guidance_scale"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**53}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"seed": "7"}, "seed"),
    ({"format": "gif"}, "format"),
    ({"format": "MP4"}, "format"),
    ({"format": "../../etc/passwd"}, "format"),
    ({"format": None}, "format"),
    ({"enhance_prompt": True}, "enhance_prompt"),
    ({"enhance_prompt": "sometimes"}, "enhance_prompt"),
    ({"model": ""}, "model"),
    ({"model": 3}, "model"),
    ({"model": "a" * 101}, "model"),
    ({"promt": "a"}, "promt"),
    ({"output_path": "/tmp/film.mp4"}, "output_path"),
    ({"__proto__": {}}, "__proto__"),
    ({"": 1}, ""),
    ({"x" * 3000: 1}, "x" * 64),
]


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem document, after checking what every one of them promises."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    document = answer.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"urn:rushes:problem:{code}"
    assert document["title"] == KINDS[code].title
    assert document["detail"]
    assert len(answer.content) < 4096
    return document


@pytest.mark.parametrize(("body", "status", "code", "field"), [case[1:] for case in BODIES], ids=[c[0] for c in BODIES])
def test_a_body_that_cannot_be_read(gateway: Gateway, body: bytes, status: int, code: str, field: str | None) -> None:
    """Broken or ambiguous JSON is refused before anything is made of it."""
    answer = gateway.client.post("/generate", content=body, headers=JSON)
    document = problem(answer, status, code)
    assert document.get("field") == field
    assert not LEAKS.search(answer.text)


@pytest.mark.parametrize(("fields", "named"), FIELDS, ids=[json.dumps(case[0])[:40] for case in FIELDS])
def test_a_field_that_cannot_be_used(gateway: Gateway, fields: dict[str, Any], named: str) -> None:
    """A wrong type, a broken bound or an unknown name is a 422 that names the field."""
    answer = gateway.post(GOOD | fields)
    document = problem(answer, 422, "invalid_field")
    assert document["field"] == named
    assert named in document["detail"]


def test_every_wrong_field_is_told_at_once(gateway: Gateway) -> None:
    """A form can mark all that is wrong with it."""
    document = problem(gateway.post({"width": "x", "fps": 0, "promt": "a"}), 422, "invalid_field")
    assert {error["field"] for error in document["errors"]} == {"prompt", "width", "fps", "promt"}
    assert "did you mean prompt?" in json.dumps(document)


def test_an_unknown_model(gateway: Gateway) -> None:
    """A model that is not served has a code of its own and the ones that are; a path is never opened."""
    for name in ("wan-99b", "/etc", "../tiny-wan", "TINY-WAN"):
        document = problem(gateway.post(GOOD | {"model": name}), 422, "unknown_model")
        assert document["known"] == ["tiny-wan"]


def test_an_enhancer_that_is_not_there(gateway: Gateway) -> None:
    """What was asked for explicitly is refused rather than left out in silence."""
    problem(gateway.post(GOOD | {"enhance_prompt": "always"}), 422, "enhancer_unavailable")
    for word in ("auto", "never"):
        assert gateway.post(GOOD | {"enhance_prompt": word}).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
    ],
)
def test_another_content_type(gateway: Gateway, content_type: str | None) -> None:
    """Only JSON is read, which also keeps pages of other sites from posting here."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = gateway.client.post("/generate", content=json.dumps(GOOD).encode(), headers=headers)
    problem(answer, 415, "unsupported_media_type")


def test_json_content_types_that_are_fine(gateway: Gateway) -> None:
    """Case and an explicit UTF-8 make no difference."""
    for content_type in ("application/json;charset=utf-8", "Application/JSON", 'application/json; charset="UTF-8"'):
        answer = gateway.client.post("/generate", content=json.dumps(GOOD), headers={"Content-Type": content_type})
        assert answer.status_code == 202


def test_a_compressed_body(gateway: Gateway) -> None:
    """Nothing is unpacked, so that there are no bombs."""
    answer = gateway.client.post("/generate", content=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"})
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("size", [65_537, 1_000_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(gateway: Gateway, size: int, chunked: bool) -> None:
    """Bytes are counted as they arrive, whatever was declared."""
    body = b'{"prompt": "' + b"a" * size + b'"}'
    content = iter([body[at : at + 16_384] for at in range(0, len(body), 16_384)]) if chunked else body
    document = problem(gateway.client.post("/generate", content=content, headers=JSON), 413, "body_too_large")
    assert document["max_bytes"] == 65_536


def test_an_absurd_declared_length_is_refused_unread(gateway: Gateway) -> None:
    """A declaration far beyond the limit is answered before a byte of it is sent."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


CHUNKED = (
    b"POST /generate HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nTransfer-Encoding:chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nzz\r\n",
        CHUNKED + b"zz\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: \x00secret\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http(gateway: Gateway, request_bytes: bytes) -> None:
    """What is no HTTP is told so like every other mistake and hung up on, and the next client is served."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request_bytes)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # what it had not read when it hung up
            while part := connection.recv(4096):
                answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "invalid_http"
    assert b"bytearray" not in body
    assert gateway.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("PUT", "/generate", "POST"),
        ("DELETE", "/generate", "POST"),
        ("PATCH", "/generate", "POST"),
        ("OPTIONS", "/generate", "POST"),
        ("POST", f"/jobs/{'0' * 32}", "DELETE, GET"),
        ("PUT", f"/jobs/{'0' * 32}", "DELETE, GET"),
        ("POST", f"/jobs/{'0' * 32}/video", "GET, HEAD"),
        ("DELETE", f"/jobs/{'0' * 32}/events", "GET"),
        ("POST", "/healthz", "GET"),
        ("BREW", "/models", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_another_method(gateway: Gateway, method: str, path: str, allowed: str) -> None:
    """A known path with a method it has not says all that it has."""
    answer = gateway.client.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


IDS = [
    "0" * 32,
    "f" * 31,
    "F" * 32,
    "nope",
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "a%0d%0aX-Injected:%20yes",
    "{q:tiny-wan}:leases",
    "*",
    "-",
    "%E2%80%AE",
    "%ff",
    "1" * 5000,
    "'; DROP TABLE jobs; --",
    "null",
]


@pytest.mark.parametrize("job_id", IDS)
@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/video")])
def test_an_id_that_is_no_job(gateway: Gateway, job_id: str, method: str, tail: str) -> None:
    """An id that is malformed, escapes, or simply unknown is one and the same 404."""
    answer = gateway.client.request(method, f"/jobs/{job_id}{tail}")
    problem(answer, 404, "not_found")
    assert "x-injected" not in answer.headers
    assert not LEAKS.search(answer.text)


@pytest.mark.parametrize(
    "path",
    ["/", "/jobs", "/jobs/", "/Generate", "/generate/", "//generate", "/docs", "/v1/videos", "/../etc/passwd", "/%00"],
)
def test_a_path_that_is_not_there(gateway: Gateway, path: str) -> None:
    """There is nothing beside the routes, and no redirect."""
    problem(gateway.client.get(path), 404, "not_found")


@pytest.mark.parametrize("key", ["", "a" * 256, "with space", "tab\there", "caf\xe9"])
def test_an_idempotency_key_that_cannot_be_used(gateway: Gateway, key: str) -> None:
    """A key is 1 to 255 visible ASCII characters."""
    headers = {b"Idempotency-Key": key.encode("latin-1"), b"Content-Type": b"application/json"}
    answer = gateway.client.post("/generate", content=json.dumps(GOOD), headers=headers)  # type: ignore[arg-type]
    assert problem(answer, 422, "invalid_field")["field"].lower() == "idempotency-key"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", "", "a@localhost"]
)
def test_a_host_of_somebody_else(gateway: Gateway, host: str) -> None:
    """A name that others can point at loopback is not answered to."""
    problem(gateway.client.get("/models", headers={"Host": host}), 400, "invalid_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"])
def test_hosts_that_are_ours(gateway: Gateway, host: str) -> None:
    """Loopback goes by these names, at any port."""
    assert gateway.client.get("/healthz", headers={"Host": host}).status_code == 200
