"""What every provider takes: names, ids of one's own, results behind their calls."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio._core._fit import NOT_RUN, CallIds, Entry, digest, fit_name, is_blank, result_message


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("get_weather", "get_weather"),
        ("functions.get_weather", "functions_get_weather"),
        ("wetter für ☃", "wetter_f_r__"),
        ("x" * 70, "x" * 64),
        ("", "unnamed"),
    ],
)
def test_names_keep_what_every_provider_takes(name: str, fit: str) -> None:
    assert fit_name(name) == fit


@given(st.text())
def test_any_name_is_made_fit_once(name: str) -> None:
    fit = fit_name(name)

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", fit)
    assert fit_name(fit) == fit


@given(
    st.lists(st.sampled_from(["a.b", "a:b", "a_b", "", "x" * 41, "x" * 40, "é", "a b", "a_b_2"]))
)
def test_ids_are_their_own_for_the_strictest(wanted: list[str]) -> None:
    ids = CallIds(["old"])
    taken = [ids.take(id, "own") for id in wanted]

    assert all(re.fullmatch(r"[!-~]{1,40}", id) for id in taken)
    assert len({re.sub(r"[^A-Za-z0-9_-]", "_", id) for id in ["old", *taken]}) == len(taken) + 1


def test_an_id_that_fits_stays_and_another_gets_the_fallback() -> None:
    ids = CallIds(["used"])

    assert ids.take("functions.look:0", "own") == "functions.look:0"
    assert ids.take("used", "own") == "own"
    assert ids.take("used", "own") == "own_2"
    assert ids.take("used", "own") == "own_3"


def test_texts_of_spaces_are_blank() -> None:
    assert all(is_blank(text) for text in ("", " \n\t\u2003"))
    assert not is_blank(" a ")


def test_digests_are_short_and_take_any_text() -> None:
    assert digest("a") == digest("a") != digest("\ud800")
    assert re.fullmatch("[0-9a-f]{16}", digest("\ud800"))


def test_a_call_without_a_result_says_so_and_each_copy_is_the_callers() -> None:
    entry = Entry({"role": "assistant", "content": None}, {"1": "a", "2": "b"})
    entry.results["2"] = result_message("b", "done")
    told = list(entry.told())
    told[2]["content"] = "changed"

    assert list(entry.told())[1:] == [result_message("a", NOT_RUN), result_message("b", "done")]
