"""`[[target]]` tables: what they say, what follows, and one sentence with a line number for each mistake."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.errors import ClusterError
from tvmpipe.targets.description.boards import boards, find_target
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.targets.description.target import TargetDescription

DEVICE = '\n[[device]]\nname = "a"\ntarget = "rock"\n'
LIKE = '[[target]]\nname = "rock"\nlike = "pi5"\n'
WHOLE = """\
[[target]]
name = "rock"
triple = "aarch64-linux-gnu"
cpu = "cortex-a78"
cores = 8
clock = "2.2GHz"
memory_bandwidth = "12GB/s"
"""


def own(text: str) -> TargetDescription:
    """The target of the only device in a file that begins so."""
    cluster = parse_cluster(text + DEVICE)
    (device,) = cluster.devices
    assert device.target in cluster.targets
    return device.target


def test_a_whole_description() -> None:
    rock = own(WHOLE)
    assert (rock.name, rock.board, rock.triple, rock.cpu) == ("rock", "rock", "aarch64-linux-gnu", "cortex-a78")
    assert (rock.cores, rock.clock_hz, rock.memory_bandwidth_bps) == (8, 2.2e9, 12e9)
    assert (rock.vector_bits, rock.vector_registers, rock.flops_per_cycle) == (128, 32, 16)  # of NEON, two FMA units
    assert rock.sustained_fraction == find_target("pi5").sustained_fraction
    assert parse_cluster(WHOLE + DEVICE).devices[0].threads == 8


def test_like_another_one() -> None:
    pi, rock = find_target("pi5"), own(LIKE + 'clock = "1GHz"\n')
    assert rock.clock_hz == 1e9
    same = ("triple", "cpu", "vector_bits", "vector_registers", "cores", "flops_per_cycle", "memory_bandwidth_bps")
    assert all(getattr(rock, name) == getattr(pi, name) for name in same)


def test_another_processor_brings_its_own_vectors() -> None:
    """And the features of one are not those of another."""
    v3 = '[[target]]\nname = "rock"\nlike = "x86-64-v3"\n'
    wide = own(v3 + 'cpu = "skylake-avx512"\n')
    assert (wide.vector_bits, wide.vector_registers, wide.flops_per_cycle) == (512, 32, 64)
    assert wide.sustained_fraction == find_target("x86-64-v4").sustained_fraction
    narrow = own(v3 + 'features = ["-avx"]\n')
    assert (narrow.vector_bits, narrow.flops_per_cycle) == (128, 16)
    first = '[[target]]\nname = "first"\nlike = "pi5"\nfeatures = ["+dotprod"]\n'
    then = '[[target]]\nname = "rock"\nlike = "first"\n'
    assert own(first + then).features == ("+dotprod",)
    assert own(first + then + 'cpu = "cortex-a53"\n').features == ()


def test_features_reach_llvm() -> None:
    rock = own(LIKE + 'features = ["+dotprod", "-crc"]\n')
    assert list(rock.tvm_target(1).attrs["mattr"]) == ["+dotprod", "-crc"]


def test_vectors_that_the_processor_has_may_be_left_unused() -> None:
    assert own('[[target]]\nname = "rock"\nlike = "x86-64-v4"\nvector_bits = 256\n').vector_bits == 256


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[target]]\nname = "rock"\n', "line 2: [[target]] needs the key 'triple', or 'like' and the name of a"),
        (WHOLE.replace("cores = 8\n", ""), "line 2: [[target]] needs the key 'cores', or 'like'"),
        ('[[target]]\nlike = "pi5"\n', "line 1: [[target]] needs the key 'name'"),
        (LIKE.replace("pi5", "pi9"), "line 3: target 'pi9' is not known; allowed: native, "),
        (LIKE.replace("pi5", "rock"), "line 3: target 'rock' is not known; allowed: native, "),
        (LIKE.replace("rock", "pi4"), "line 2: target name 'pi4' is taken; these are: native, "),
        (LIKE.replace("rock", "native"), "line 2: target name 'native' is taken"),
        (LIKE + LIKE, "line 5: target name 'rock' is taken"),
        (LIKE.replace("rock", "../rock"), "line 2: name: String should match pattern"),
        (LIKE + 'clok = "1GHz"\n', "line 4: [[target]] has no key 'clok'; allowed: name, like, triple, cpu, features,"),
        (LIKE + "clock = 2.4\n", "line 4: clock: 2.4 is not a frequency; write a number and one of Hz, kHz, MHz, GHz"),
        (LIKE + "cores = 0\n", "line 4: cores: Input should be greater than or equal to 1"),
        (LIKE + 'memory_bandwidth = "4"\n', "line 4: memory_bandwidth: '4' is not a bandwidth"),
        (LIKE + "vector_bits = 192\n", "line 4: vector_bits: 192 is no width of vectors; allowed: 128, 256, 512"),
        (LIKE + "vector_bits = 256\n", "line 4: vector_bits is 256, those of cortex-a76 are 128"),
        (
            LIKE + 'triple = "z80-linux-gnu"\n',
            "line 4: no code can be made for the triple 'z80-linux-gnu'; allowed: ",
        ),
        (LIKE + 'triple = "aarch64-apple-darwin"\n', "line 4: no code can be made for the triple"),
        (LIKE + 'triple = "aarch64-linux-../x"\n', "line 4: no code can be made for the triple"),
        (LIKE + 'triple = "x86_64-linux-gnu"\n', "line 1: LLVM knows no x86_64 processor 'cortex-a76'; it knows "),
        (LIKE + 'cpu = "cortex-a67"\n', "line 4: LLVM knows no aarch64 processor 'cortex-a67'; it knows cortex-a7"),
        (LIKE + 'features = ["+dotprd"]\n', "line 4: LLVM knows no aarch64 feature 'dotprd'; it knows dotprod"),
        (LIKE + 'features = ["dotprod"]\n', "line 4: feature 'dotprod' does not begin with '+' or '-'"),
        (LIKE.replace("[[target]]", "[target]"), "line 1: target is a list of tables; write [[target]] above each"),
    ],
)
def test_mistakes_name_their_line(text: str, sentence: str) -> None:
    with pytest.raises(ClusterError, match=re.escape(f"cluster.toml {sentence}")):
        parse_cluster(text + DEVICE)


NUMBERS = {
    "vector_bits": st.just(128),
    "vector_registers": st.integers(8, 64),
    "cores": st.integers(1, 1024),
    "clock": st.integers(1, 10_000).map(lambda mhz: f"{mhz}MHz"),
    "flops_per_cycle": st.floats(0.5, 1000),
    "memory_bandwidth": st.integers(1, 10_000).map(lambda size: f"{size}MB/s"),
    "sustained_fraction": st.floats(0.01, 1),
}
CPUS = st.sampled_from(["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"])


def written(name: str, values: dict[str, object]) -> str:
    return f'[[target]]\nname = "{name}"\n' + "".join(f"{key} = {json.dumps(one)}\n" for key, one in values.items())


@settings(deadline=None)
@given(st.fixed_dictionaries({"cpu": CPUS, **NUMBERS}), st.sets(st.sampled_from(sorted(NUMBERS))))
def test_what_is_not_said_is_as_in_like(values: dict[str, object], said: set[str]) -> None:
    """A board that says everything, and one like it that says some of it again: they are equal but for their names."""
    whole = written("first", {"triple": "aarch64-linux-gnu", **values})
    again = written("rock", {"like": "first", **{key: values[key] for key in said}})
    first, second = parse_cluster(whole + again + DEVICE).targets
    assert first.name == first.board == "first"
    assert second.name == second.board == "rock"
    facts = [{**vars(target), "name": "", "board": ""} for target in (first, second)]
    assert facts[0] == facts[1]


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["name", "like", "triple", "cpu", "features", "extra", *NUMBERS]),
        st.one_of(
            st.sampled_from(["pi5", "rock", "native", "aarch64-linux-gnu", "x86_64-linux-gnu", "cortex-a76", "2GHz"]),
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=80),
            st.integers(-(2**40), 2**40),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=10), max_size=3),
        ),
    )
)
def test_any_table_is_a_target_or_one_sentence(values: dict[str, object]) -> None:
    text = "[[target]]\n" + "".join(f"{key} = {json.dumps(one, ensure_ascii=False)}\n" for key, one in values.items())
    with contextlib.suppress(ClusterError):
        (target,) = parse_cluster(text + '[[device]]\nname = "a"\n').targets
        assert target.name not in {board.name for board in boards()}
        assert re.fullmatch(r"[A-Za-z0-9_.,+=-]{1,200}", target.identity)  # a file is called so
        target.tvm_target(1)
        return
    with pytest.raises(ClusterError, match=r"^cluster\.toml line [1-9][0-9]*: [^\n]*$"):
        parse_cluster(text + '[[device]]\nname = "a"\n')
