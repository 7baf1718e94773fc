"""A secret, and what is made of one, is compared in constant time alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.contracts.sources import sources

SECRET = re.compile(
    r"(^|_)(secrets?|tokens?|passwords?|signatures?|(hex)?digests?|sha256|hmac|mac)(_|$)", re.IGNORECASE
)
KEY = re.compile(r"^(api_?|access_|sent_|secret_)?keys?$", re.IGNORECASE)


def _name(node: ast.expr) -> str:
    """What an operand is called: a variable, an attribute, a field by its text, or the function that made it."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case ast.Call(func=ast.Attribute(attr="encode" | "decode" | "strip" | "lower" | "hex", value=value)):
            return _name(value)
        case ast.Call(func=function):
            return _name(function)
        case ast.Subscript(value=value) | ast.Await(value=value):
            return _name(value)
    return ""


def compared_plainly(tree: ast.AST) -> Iterator[ast.Compare]:
    """Comparisons by == and != of which a side is called a key, a secret, or what is made of one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        for left, operator, right in zip((node.left, *node.comparators), node.ops, node.comparators, strict=False):
            names = (_name(left), _name(right))
            if isinstance(operator, (ast.Eq, ast.NotEq)) and any(SECRET.search(n) or KEY.match(n) for n in names):
                yield node


def test_secrets_are_compared_in_constant_time() -> None:
    """Nothing of the server compares a key, secret, token, password, signature or digest with == or !=."""
    for source in sources("server"):
        for node in compared_plainly(source.tree):
            pytest.fail(f"{source.path}:{node.lineno} {ast.unparse(node)}: use hmac.compare_digest")


@pytest.mark.parametrize(
    "code",
    [
        "key == sent",
        "api_key != other",
        "request.token == token",
        "entry.sha256 == x",
        "x == entry['secret']",
        "sha256(text).hexdigest() == known",
        "known == digest_of(text)",
        "key.encode() == known",
        "signature[3:] == x",
        "0 < n != token",
        "PASSWORD == 'hunter2'",
    ],
)
def test_the_rule_sees(code: str) -> None:
    """Each of these would tell an attacker, letter by letter, what is right."""
    assert list(compared_plainly(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "len(token) == 43",
        "shape_key == other.shape_key",
        "token is None",
        "key in known",
        "hmac.compare_digest(digest, known)",
        "body_hash == other",
        "keyed == 1",
        "machine == 2",
        "index < keys",
    ],
)
def test_the_rule_leaves_alone(code: str) -> None:
    """These tell nothing, or are about keys of another kind."""
    assert not list(compared_plainly(ast.parse(code)))
