"""Addresses: as written, of which family, which are this machine's, and where an agent registers."""

from __future__ import annotations

import ipaddress
import socket

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import PATIENCE_S
from tvmpipe.bundle import Bundle
from tvmpipe.errors import InputError
from tvmpipe.runtime.device.advertise import registered_host
from tvmpipe.runtime.head.link_checks import check_links
from tvmpipe.runtime.head.opened import OpenError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.address import (
    format_address,
    has_ipv6,
    is_loopback,
    leads_back,
    listen,
    numeric,
    own_addresses,
    parse_address,
)
from tvmpipe.runtime.transport.sockets import Sockets, head_hosts

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@given(st.ip_addresses(), st.integers(1, 65535))
def test_what_is_formatted_is_parsed(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    assert parse_address(format_address(str(ip), port)) == (str(ip), port)


@given(st.ip_addresses(v=4))
def test_mapped_addresses_are_what_they_are(ip: ipaddress.IPv4Address) -> None:
    assert numeric(f"::ffff:{ip}") == str(ip)
    assert is_loopback(f"::ffff:{ip}") == ip.is_loopback


@pytest.mark.parametrize("text", ["::1:9190", "fe80::1", "[::1]", "[]:1", ":1", "a:0", "a:65536", "a:1x", "a:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match="tracker address"):
        parse_address(text)


def test_an_ipv6_address_needs_brackets() -> None:
    with pytest.raises(InputError, match=r"needs brackets around an IPv6 address, such as \[::1\]:9190"):
        parse_address("::1:9190")


def test_own_addresses_are_those_of_the_interfaces() -> None:
    known = {each.address.partition("%")[0] for all_ in psutil.net_if_addrs().values() for each in all_}
    found = own_addresses()
    assert set(found) <= known
    assert not any(ipaddress.ip_address(each).is_loopback for each in found)


@pytest.mark.parametrize(
    ("host", "here", "there", "registered"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.9", "192.0.2.7"),
        ("192.0.2.7", "127.0.0.1", "127.0.1.1", "192.0.2.7"),
        ("0.0.0.0", "192.0.2.7", "192.0.2.9", None),
        ("::", "2001:db8::7", "2001:db8::9", None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::1", "::1"),
    ],
)
def test_where_an_agent_registers(host: str, here: str, there: str, registered: str | None) -> None:
    assert registered_host(host, here, there) == registered


@pytest.mark.parametrize("ends", [("127.0.0.1", "127.0.1.1"), ("::1", "::1")])
def test_a_tracker_on_loopback_is_not_told_loopback(ends: tuple[str, str]) -> None:
    if not own_addresses():
        with pytest.raises(InputError, match="no address that others reach"):
            registered_host("::", *ends)
        return
    assert registered_host("::", *ends) == registered_host("0.0.0.0", *ends) == own_addresses()[0]


def test_an_agent_on_loopback_has_its_tracker_there() -> None:
    with pytest.raises(InputError, match=r"listens on 127\.0\.0\.1 is reached from this machine only, .* at 192"):
        registered_host("127.0.0.1", "192.0.2.7", "192.0.2.9")


def test_what_leads_back() -> None:
    assert leads_back(("127.0.0.1", 9200), ("0.0.0.0", 9200))
    assert leads_back(("127.0.1.1", 9200), ("::", 9200))
    assert leads_back(("::1", 9200), ("::", 9200))
    assert leads_back(("127.0.0.1", 9200), ("127.0.0.1", 9200))
    assert not leads_back(("127.0.0.1", 9201), ("0.0.0.0", 9200))
    assert not leads_back(("192.0.2.200", 9200), ("0.0.0.0", 9200))
    assert not leads_back(("127.0.0.1", 9200), ("192.0.2.7", 9200))
    for address in own_addresses():
        assert leads_back((address, 9200), ("0.0.0.0", 9200))


@needs_ipv6
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_takes_both_families(host: str) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=PATIENCE_S).close()


@needs_ipv6
@pytest.mark.parametrize("key", [None, ClusterKey(b"1" * 32)])
def test_a_head_is_reached_over_both_families(key: ClusterKey | None) -> None:
    with Sockets(key) as head, Sockets(key) as device:
        inbox, port = head.pull(head_hosts(key))
        statuses, status_port = head.router(head_hosts(key))
        for address in ("127.0.0.1", "::1"):
            push, _monitor = device.push((address, port))
            push.send(address.encode())
            assert inbox.poll(int(PATIENCE_S * 1e3))
            assert inbox.recv() == address.encode()
            dealer = device.dealer((address, status_port))
            dealer.send(b"well")
            assert statuses.poll(int(PATIENCE_S * 1e3))
            identity, said = statuses.recv_multipart()
            statuses.send_multipart([identity, said])
            assert dealer.poll(int(PATIENCE_S * 1e3))


def test_devices_on_loopback_and_elsewhere_in_one_plan(chain_bundle: Bundle) -> None:
    """A plan for alpha, beta and gamma in a row: who is sent to must be where its sender finds it."""
    plan = chain_bundle.manifest.plan
    inside, outside = "127.0.0.1:9200", "192.0.2.200:9200"
    for links in ((inside, inside, inside), (outside, outside, outside), (inside, outside, outside)):
        check_links(plan, dict(zip(plan.devices, links, strict=True)))
    with pytest.raises(OpenError, match=r"beta is at 127\.0\.0\.1, which to device alpha at 192\.0\.2\.200 is itself"):
        check_links(plan, dict(zip(plan.devices, (outside, inside, outside), strict=True)))
