"""Cluster files: units, defaults, and one sentence with a line number for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmpipe.errors import ClusterError
from tvmpipe.targets.description.cluster import DEFAULT_BANDWIDTH_BPS, HEAD, load_cluster, parse_cluster

GOOD = """\
[[device]]
name = "pi"
key = "pi4"
target = "pi4"
memory = "512MiB"

[[device]]
name = "desk"
threads = 2

[[link]]
between = ["pi", "desk"]
bandwidth = "8Mbps"
latency = "2ms"
"""


def test_good_file() -> None:
    cluster = parse_cluster(GOOD)
    pi, desk = cluster.devices
    assert (pi.key, pi.threads, pi.memory_bytes) == ("pi4", 4, 512 << 20)
    assert (desk.key, desk.threads, desk.memory_bytes) == ("desk", 2, None)
    assert cluster.link("desk", "pi").bandwidth_bps == 1e6
    assert cluster.link("pi", "desk").busy_s(1_000_000) == pytest.approx(1.0)
    assert cluster.link("pi", HEAD).bandwidth_bps == DEFAULT_BANDWIDTH_BPS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('memory = "512MiB"', 'memmory = "512MiB"', r"line 5: \[\[device\]\] has no key 'memmory'; allowed: name, key"),
        ('memory = "512MiB"', 'memory = "512 apples"', "line 5: memory: '512 apples' is not a size"),
        ("threads = 2", "threads = 0", "line 9: threads: .*greater than or equal to 1"),
        ('target = "pi4"', 'target = "pi9"', "line 4: target 'pi9' is not known; allowed: native, jetson-nano"),
        ('name = "desk"', 'name = "pi"', "line 8: device name 'pi' is taken"),
        ('name = "desk"', 'nam = "desk"', r"line 7: \[\[device\]\] needs the key 'name'"),
        ('["pi", "desk"]', '["pi", "desc"]', "line 12: 'desc' is no device; allowed: pi, desk, head"),
        ('"8Mbps"', '"8 parsecs"', "line 13: bandwidth: '8 parsecs' is not a bandwidth"),
        ("[[link]]", "[[lnk]]", "line 11: there is no table 'lnk'; allowed: target, device, link"),
        ("[[link]]", "[[link]", "is not valid TOML"),
    ],
)
def test_mistakes_name_their_line(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ClusterError, match=message):
        parse_cluster(GOOD.replace(old, new, 1))


def test_a_mark_before_the_text_is_no_part_of_it(tmp_path: Path) -> None:
    """As Windows' editors write it; in UTF-16 it is no TOML, and the sentence says what is."""
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load_cluster(path) == parse_cluster(GOOD)
    path.write_text(GOOD, encoding="utf-16")
    with pytest.raises(ClusterError, match=r"cluster.toml is no text in UTF-8 \(byte 0\); save it as UTF-8"):
        load_cluster(path)


def test_no_devices() -> None:
    with pytest.raises(ClusterError, match=r"no \[\[device\]\] table"):
        parse_cluster("")


def test_missing_file() -> None:
    with pytest.raises(ClusterError, match=r"nowhere\.toml does not exist"):
        load_cluster("nowhere.toml")
