"""Why a call out did not take place, or was not answered.

OutboundError
├── UrlRefusedError      the URL can never be called under this policy; also a ValueError
├── AddressRefusedError  the name leads, now, to an address that is not to be called
└── UnreachableError     no name server, no connection, no TLS, no HTTP or no time

No message holds more of a URL than its host: paths and queries carry secrets.
"""

from __future__ import annotations


class OutboundError(Exception):
    """A call out brought no answer; the message says why in one sentence."""


class UrlRefusedError(OutboundError, ValueError):
    """The URL can never be called; what to write instead is in the message."""


class AddressRefusedError(OutboundError):
    """The name resolves to an address outside the public internet and the allowed networks."""


class UnreachableError(OutboundError):
    """Nobody answered in time, or not in HTTP."""
