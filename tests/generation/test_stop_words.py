"""Stop strings, however the text is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.generation.stop_words import StopWords

LETTERS = st.text("ab", max_size=12)
WORDS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def letter_by_letter(text: str, words: list[str]) -> tuple[str, bool]:
    """What comes before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        complete = [word for word in words if text[:end].endswith(word)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(st.lists(LETTERS, max_size=6), WORDS)
@settings(max_examples=120, deadline=None)
def test_the_cut_does_not_matter(pieces: list[str], words: list[str]) -> None:
    stops = StopWords(words)
    shown = ""
    for number, piece in enumerate(pieces):
        shown += stops.push(piece)
        come = "".join(pieces[: number + 1])
        expected, stopped = letter_by_letter(come, words)
        assert stops.stopped == stopped
        if stopped:
            assert shown == expected
        else:
            # Held back is only what may become a stop string.
            held = come[len(shown) :]
            assert not held or any(word.startswith(held) for word in words)
    assert shown + stops.finish() == letter_by_letter("".join(pieces), words)[0]


def test_nothing_comes_after_a_stop() -> None:
    stops = StopWords(["END"])
    assert [stops.push(one) for one in ("so E", "N", "D and", " on")] == ["so ", "", "", ""]
    assert stops.stopped
    assert stops.finish() == ""
