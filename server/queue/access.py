"""The Redis user that rushes needs: what it may do, which is no more than the queue does."""

from __future__ import annotations

import hashlib
import re

# What the functions call with their caller's rights, what the client reads and announces, and the outbox's consumers.
# No EVAL, SCRIPT, FUNCTION, CONFIG, KEYS, SCAN, FLUSH, DEBUG: a stolen password reaches neither the server nor other
# keys, and no Lua but what an administrator has loaded.
COMMANDS = (
    *("fcall", "fcall_ro", "time", "exists", "del", "pexpire", "get", "set", "mget"),
    *("hget", "hmget", "hgetall", "hset", "hsetnx", "hincrby", "hdel", "hexists"),
    *("zadd", "zrem", "zscore", "zcard", "zrank", "zrange", "zrangebyscore", "zremrangebyscore", "zmscore"),
    *("sadd", "srem", "scard", "smembers"),
    *("xadd", "xdel", "xlen", "xread", "xrange", "xack", "xclaim", "xpending", "xreadgroup", "xgroup|create"),
    *("multi", "exec", "discard", "ping", "hello", "auth", "select", "client|setname"),
)
_USER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def acl_line(user: str, password: str) -> str:
    """The user's line for Redis's ACL file, with the password's SHA-256 alone; ValueError for a name that is none."""
    if not _USER.fullmatch(user):
        raise ValueError(f"user {user[:80]!r} is not a name; use 1 to 64 letters, digits, '_' or '-'")
    if len(password) < 16:
        raise ValueError(f"the password has {len(password)} characters; use 16 or more, chosen by a machine")
    digest = hashlib.sha256(password.encode()).hexdigest()
    allowed = " ".join(f"+{command}" for command in COMMANDS)
    return f"user {user} on #{digest} ~{{q:* resetchannels -@all {allowed}"
