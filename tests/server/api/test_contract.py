"""What clients and operators rely on, frozen: the OpenAPI document, the error codes, and a gateway without torch.

To accept a change on purpose: `python -m tests.server.api.test_contract` and commit the new openapi.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from server.api.app import create_app
from server.api.errors import KINDS
from server.settings import load_settings
from tests.server.api.test_refusals import GOOD
from tests.server.live import Gateway

SNAPSHOT = Path(__file__).with_name("openapi.json")


def openapi(model: Path, state_dir: Path) -> dict[str, Any]:
    """The document, without the version, which changes for other reasons."""
    app = create_app(load_settings(model=str(model), state_dir=state_dir, redis_url="redis://localhost"))
    document = json.loads(json.dumps(app.openapi()))
    del document["info"]["version"]
    return document


def test_the_openapi_document_is_frozen(tiny_wan: Path, tmp_path: Path) -> None:
    """Routes, fields, bounds and codes change only on purpose."""
    assert openapi(tiny_wan, tmp_path) == json.loads(SNAPSHOT.read_text())


def test_the_document_is_served(gateway: Gateway) -> None:
    """Clients can fetch it, and it is the frozen one."""
    document = gateway.client.get("/openapi.json").json()
    assert document["paths"].keys() == json.loads(SNAPSHOT.read_text())["paths"].keys()


def test_the_routes_are_these(tiny_wan: Path, tmp_path: Path) -> None:
    """A route more or less is a decision."""
    paths = openapi(tiny_wan, tmp_path)["paths"]
    assert {path: sorted(operations) for path, operations in paths.items()} == {
        "/generate": ["post"],
        "/jobs/{job_id}": ["delete", "get"],
        "/jobs/{job_id}/events": ["get"],
        "/jobs/{job_id}/video": ["get"],
        "/healthz": ["get"],
        "/readyz": ["get"],
        "/models": ["get"],
    }


def test_the_document_tells_where_keys_are_needed(tiny_wan: Path, tmp_path: Path) -> None:
    """Every operation but the probes takes a key in either of two headers, and tells what is answered without one."""
    document = openapi(tiny_wan, tmp_path)
    schemes = document["components"]["securitySchemes"]
    assert {name: (s["type"], s.get("scheme"), s.get("name")) for name, s in schemes.items()} == {
        "bearer": ("http", "bearer", None),
        "header": ("apiKey", None, "X-API-Key"),
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            keyed = path not in ("/healthz", "/readyz")
            assert operation.get("security", []) == ([{"bearer": []}, {"header": []}] if keyed else []), path
            assert ("401" in operation["responses"]) is keyed, path


def test_every_number_of_a_request_is_bounded(tiny_wan: Path, tmp_path: Path) -> None:
    """Each number has a floor and a ceiling in the schema, each text a length, and nothing else is accepted."""
    body = openapi(tiny_wan, tmp_path)["components"]["schemas"]["GenerateBody"]
    assert body["additionalProperties"] is False
    for name, schema in body["properties"].items():
        for kind in schema.get("anyOf", [schema]):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "maximum"} <= kind.keys(), name
            elif kind.get("type") == "string":
                assert "maxLength" in kind or "enum" in kind, name
        assert schema.get("description"), name


def test_error_codes_are_frozen() -> None:
    """A code means one status for ever."""
    assert {code: kind.status for code, kind in KINDS.items()} == {
        "invalid_http": 400,
        "invalid_json": 400,
        "invalid_host": 400,
        "unauthorized": 401,
        "not_found": 404,
        "video_missing": 404,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "video_not_ready": 409,
        "video_expired": 410,
        "body_too_large": 413,
        "unsupported_media_type": 415,
        "range_not_satisfiable": 416,
        "invalid_field": 422,
        "unknown_model": 422,
        "enhancer_unavailable": 422,
        "webhooks_unavailable": 422,
        "idempotency_conflict": 422,
        "queue_full": 429,
        "tenant_quota": 429,
        "too_many_streams": 429,
        "internal_error": 500,
        "queue_unavailable": 503,
        "not_ready": 503,
    }


def test_the_gateway_holds_no_torch(gateway: Gateway) -> None:
    """A gateway that has served requests of every kind has not loaded the libraries that engines need."""
    job = gateway.post(GOOD).json()
    for path in (*job["links"].values(), "/models", "/readyz", "/openapi.json"):
        if not path.endswith("/events"):
            gateway.client.get(path)
    mapped = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    for library in ("libtorch", "torch/", "transformers", "diffusers", "numpy", "av.libs"):
        assert library not in mapped


if __name__ == "__main__":
    from tests.tiny_wan import save_tiny_wan

    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(openapi(save_tiny_wan(Path(folder, "m")), Path(folder, "s")), indent=1, sort_keys=True)
    SNAPSHOT.write_text(text + "\n")
    sys.stdout.write(f"wrote {SNAPSHOT}\n")
