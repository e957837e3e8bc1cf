"""Who may look: names of this machine, the token, its cookie."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.camera.web.access import Access, host_of, new_token
from logoformer.errors import UsageError

TOKEN = "0123456789abcdefXYZ"
HERE, OPEN = Access("127.0.0.1", 8080, None), Access("0.0.0.0", 8080, TOKEN)


@pytest.mark.parametrize(
    "header", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "localhost.:1"]
)
def test_names_of_this_machine_are_taken(header):
    assert HERE.accepts_host(header) and OPEN.accepts_host(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
     "evil@localhost", "localhost:",
     "localhost:x", "[::1", "[::1]x", ":8080", "localhost, evil.example", "0x7f.1", "\x00"],
)  # fmt: skip
def test_other_names_are_not(header):
    assert not HERE.accepts_host(header)
    assert not OPEN.accepts_host(header)


def test_on_the_network_addresses_and_this_machines_name_are_taken_but_only_with_a_token():
    for header in ("192.168.1.7:8080", "[fe80::1]:8080", socket.gethostname(), f"{socket.gethostname()}.local:8080"):
        assert OPEN.accepts_host(header), header
    assert not HERE.accepts_host("192.168.1.7:8080")
    assert Access("cam.example", 80, TOKEN).accepts_host("cam.example")


@given(st.text(max_size=60))
def test_any_header_is_answered(text):
    assert HERE.accepts_host(text) in (True, False)
    assert HERE.lets_in(text, text) is True
    assert OPEN.lets_in(text, text) is False
    assert OPEN.knows_token(text) is (text == TOKEN)
    host_of(text)


def test_the_cookie_opens_and_does_not_tell_the_token():
    cookie = f"{OPEN.cookie_name}={OPEN.cookie_value}"
    assert OPEN.lets_in(cookie, None) and OPEN.lets_in(f"a=b; {cookie}; c=d", None)
    assert not OPEN.lets_in(cookie[:-1], None) and not OPEN.lets_in(f"{OPEN.cookie_name}={TOKEN}", None)
    assert TOKEN not in cookie
    assert Access("0.0.0.0", 8080, TOKEN).cookie_value == OPEN.cookie_value  # also after a restart
    assert Access("0.0.0.0", 8080, TOKEN + "1").cookie_value != OPEN.cookie_value
    assert Access("0.0.0.0", 8081, TOKEN).cookie_name != OPEN.cookie_name


@pytest.mark.parametrize(
    "other",
    ['prefs={"a":1}', "flag", "x=a b", "k[0]=1", "n=J\u00c3\u00a9", 'a="unterminated', "_xsrf=2|abc|1", "expires=Mon",
     "path=/x", "a=", "", "=", "logoformer-8081=0", f"{OPEN.cookie_name}=old"],
)  # fmt: skip
def test_other_programs_cookies_of_any_form_lock_nobody_out(other):
    cookie = f"{OPEN.cookie_name}={OPEN.cookie_value}"
    assert OPEN.lets_in(f"{other}; {cookie}", None) and OPEN.lets_in(f"{cookie}; {other}", None)
    assert OPEN.lets_in(f"{other};{cookie} ;{other}", None)
    assert not OPEN.lets_in(other, None) and not OPEN.lets_in(f"{other}; x{cookie}", None)
    assert not OPEN.lets_in(f"{other}={OPEN.cookie_name}={OPEN.cookie_value}", None)


def test_a_bearer_opens():
    assert OPEN.lets_in(None, f"Bearer {TOKEN}") and OPEN.lets_in(None, f"bearer  {TOKEN} ")
    assert not OPEN.lets_in(None, f"Basic {TOKEN}") and not OPEN.lets_in(None, TOKEN)
    assert not OPEN.lets_in(None, "Bearer ") and not OPEN.lets_in(None, "Bearer \u00e9")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "camera.local", ""])
def test_without_a_token_only_this_machine_may_come(host):
    with pytest.raises(UsageError, match="without a token") as caught:
        Access(host, 8080, None)
    assert "--token new" in caught.value.next


@pytest.mark.parametrize("token", ["", "short", "pässword-pässword-pässword"])
def test_a_weak_token_is_refused(token):
    with pytest.raises(UsageError, match="token"):
        Access("127.0.0.1", 8080, token)


def test_new_tokens_are_strong_and_differ():
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50 and min(map(len, tokens)) >= 32
    Access("0.0.0.0", 8080, tokens.pop())
