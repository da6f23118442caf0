"""A server knows its names, and no others."""

import pytest

from unitbox_tf.web.hosts import Hosts, is_loopback


@pytest.mark.parametrize(
    ("listening", "public", "known", "unknown"),
    [
        ("192.168.0.2", (), ["192.168.0.2:80"], ["127.0.0.1", "192.168.0.3", "localhost"]),
        ("0.0.0.0", (), ["10.0.0.1:7860", "[fe80::1]", "localhost"], ["evil.example"]),
        ("::", (), ["10.0.0.1"], ["evil.example"]),
        ("127.0.0.1", ("demo.example.org",), ["Demo.example.org", "localhost"], ["example.org"]),
        ("localhost", (), ["127.0.0.1"], ["evil.example"]),
    ],
)
def test_names_follow_from_the_options(listening, public, known, unknown):
    hosts = Hosts.of(listening, public)
    assert all(map(hosts.know, known))
    assert not any(map(hosts.know, unknown))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("localhost.example.org", False),
    ],
)
def test_the_loopback_is_known(host, expected):
    assert is_loopback(host) is expected
