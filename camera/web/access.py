"""Who may look: the Host header, the token, and the cookie that stands for it.

A page on 127.0.0.1 is reachable by every web site that a browser on this machine shows, if that site makes its own name
lead here (DNS rebinding): so names that are not this machine's are refused. Where other machines may come, a token is
asked for; a picture and an event stream cannot send a header, so its first use gives a cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass

from ...errors import UsageError

LEAST_TOKEN = 16  # characters
NEW = "new"


@dataclass(frozen=True)
class Access:
    """The rule of one server.

    Attributes:
        host: the address it listens at.
        port: and the port.
        token: None where only this machine may come.
    """

    host: str
    port: int
    token: str | None

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < LEAST_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"The token is shorter than {LEAST_TOKEN} characters, or not plain ASCII.",
                next=f"--token {NEW}, which makes one and prints it",
            )
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"Other machines can reach {self.host}, and without a token everyone there may look.",
                next=f"--token {NEW}, or leave --host out",
            )

    @property
    def cookie_name(self) -> str:
        """Differs by port: cookies of one host are shared by all its ports."""
        return f"logoformer-{self.port}"

    @property
    def cookie_value(self) -> str:
        """Stands for the token, also after a restart, and does not tell it."""
        return hmac.new((self.token or "").encode(), b"logoformer watch cookie", hashlib.sha256).hexdigest()

    def accepts_host(self, header: str | None) -> bool:
        """Whether a Host header names this machine."""
        name = host_of(header)
        if name is None:
            return False
        if is_loopback(name):
            return True
        if self.token is None:
            return False
        own = socket.gethostname().lower()
        return _address(name) is not None or name in {own, f"{own}.local", own.partition(".")[0], self.host.lower()}

    def knows_token(self, given: str | None) -> bool:
        """Whether that is the token."""
        return self.token is not None and given is not None and _same(given, self.token)

    def lets_in(self, cookies: str | None, authorization: str | None) -> bool:
        """Whether a request may look: by the cookie, or by the token as a bearer."""
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.knows_token(given.strip()):
            return True
        # By hand: http.cookies drops all that follows a pair which it does not like, such as another program's JSON.
        pairs = [pair.strip().partition("=") for pair in (cookies or "").split(";")]
        values = [value.strip().strip('"') for name, _, value in pairs if name.rstrip() == self.cookie_name]
        return any(_same(value, self.cookie_value) for value in values)


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def host_of(header: str | None) -> str | None:
    """The name or address in a Host header, without port and brackets, or None."""
    text = (header or "").strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or (rest and colon != ":"):
            return None
    else:
        name, colon, port = text.partition(":")
    if not name or (colon and not port.isdigit()):
        return None
    return name.removesuffix(".")


def is_loopback(name: str) -> bool:
    """Whether a name or address is this machine's own, that no other reaches."""
    address = _address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())
