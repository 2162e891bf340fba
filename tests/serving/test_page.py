"""The page's files and headers."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser

import pytest

from flowtrio.page._files import PageFile, page_headers, read_page

PAGE = read_page()

IMPORT = re.compile(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""")


def references(name: str, file: PageFile) -> set[str]:
    """What a file asks a browser to load."""
    text = file.body.decode()
    if name.endswith(".js"):
        return set(IMPORT.findall(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))
    if name.endswith(".css"):
        return set(re.findall(r"url\(([^)]*)\)|@import\s+\S+", text))
    found: set[str] = set()
    if name.endswith(".html"):
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attrs: found.update(  # type: ignore[method-assign]
            str(value) for key, value in attrs if key in ("src", "href") and value
        )
        parser.feed(text)
    return found


def find_unsafe(name: str, text: str) -> list[str]:
    """What has no place in a page under our policy, whatever else the file does."""
    patterns = {
        "markup out of text": r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b",
        "code out of text": r"\beval\(|\bnew Function\b|\bDOMParser\b",
        "a handler in the markup": r"\son\w+=",
        "a style in the markup": r"\sstyle=|<style",
        "a script in the markup": r"<script(?![^>]*\ssrc=)[^>]*>",
        "another origin": r"""["'(](?:https?:)?//(?!www\.w3\.org/2000/svg["'])[\w.]""",
    }
    return [what for what, pattern in patterns.items() if re.search(pattern, text)]


def test_the_page_has_its_parts() -> None:
    assert PAGE[""] is PAGE["index.html"]
    assert PAGE["studio"] is PAGE["studio.html"]
    assert {"app.js", "flowtrio.js", "style.css", "icon.svg"} <= set(PAGE)
    assert PAGE["flowtrio.js"].media_type == "text/javascript; charset=utf-8"


def test_all_of_it_is_small() -> None:
    """80 KB compressed, the studio included: it comes over a phone's network too."""
    files = {id(file): file for file in PAGE.values()}.values()

    assert sum(len(gzip.compress(file.body, 6)) for file in files) < 80_000


@pytest.mark.parametrize("name", sorted(PAGE))
def test_what_a_file_refers_to_is_there_and_relative(name: str) -> None:
    asked = {path for path in references(name, PAGE[name]) if not path.startswith("#")}

    assert {path.removeprefix("./") for path in asked} <= set(PAGE)


@pytest.mark.parametrize("name", sorted(PAGE))
def test_no_file_needs_what_the_policy_forbids(name: str) -> None:
    assert find_unsafe(name, PAGE[name].body.decode()) == []


@pytest.mark.parametrize(
    "text",
    [
        "node.innerHTML = text",
        "eval(text)",
        '<p onclick="go()">',
        '<p style="color: red">',
        "<script>go()</script>",
        '<img src="https://elsewhere.example/x.png">',
        'import "//elsewhere.example/x.js"',
    ],
)
def test_what_the_policy_forbids_is_noticed(text: str) -> None:
    assert find_unsafe("planted", text) != []


def test_the_client_library_stands_alone() -> None:
    assert references("flowtrio.js", PAGE["flowtrio.js"]) == set()


def test_the_policy_names_what_may_be_connected_to() -> None:
    policy = page_headers(["ws://127.0.0.1:8765"])["content-security-policy"]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))

    assert directives["connect-src"] == "'self' ws://127.0.0.1:8765"
    assert directives["default-src"] == "'none'"
    # What was sent is shown from the page's own memory, and images run nothing.
    assert directives.pop("img-src") == "'self' blob:"
    assert not re.search("unsafe|data:|blob:|[*]", str(directives))


def test_an_etag_is_of_the_content() -> None:
    etags = {file.body: file.etag for file in PAGE.values()}

    assert len(set(etags.values())) == len(etags)
    assert all(re.fullmatch('"[0-9a-f]{32}"', etag) for etag in etags.values())


def test_files_are_compressed_and_the_same_each_time() -> None:
    page = {name: file for name, file in PAGE.items() if name}

    assert all(gzip.decompress(file.gzipped) == file.body for file in page.values())
    assert all(read_page()[name].gzipped == file.gzipped for name, file in page.items())
    assert all(file.gzipped_etag != file.etag for file in page.values())
    assert sum(len(file.gzipped) for file in page.values()) < 80_000


# Colours

READ_ON = [
    *[(text, ground) for text in ("text", "muted", "accent") for ground in ("page", "surface")],
    *[("text", "sunken"), ("muted", "sunken"), ("text", "soft"), ("on-accent", "accent")],
    *[("bad", "surface"), ("bad", "page"), ("bad", "bad-soft"), ("text", "bad-soft")],
    *[("warn", "warn-soft"), ("text", "warn-soft"), ("muted", "warn-soft"), ("warn", "surface")],
]
"""Which colour is read on which, by the names that the style gives them."""


def colours() -> tuple[dict[str, str], dict[str, str]]:
    """What the names mean, in light and in dark."""
    root = re.findall(r":root \{(.*?)\}", PAGE["style.css"].body.decode(), re.DOTALL)[0]
    found = re.findall(r"--([\w-]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\);", root)
    return {name: light for name, light, _ in found}, {name: dark for name, _, dark in found}


def contrast(one: str, other: str) -> float:
    """How well one is read on the other, from 1 to 21: WCAG 2.2, "contrast ratio"."""
    dark, light = sorted(_luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("text", "ground"), READ_ON)
def test_text_can_be_read_in_light_and_in_dark(text: str, ground: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    light, dark = colours()

    assert contrast(light[text], light[ground]) >= 4.5
    assert contrast(dark[text], dark[ground]) >= 4.5


def test_contrast_is_measured_as_the_guidelines_do() -> None:
    assert contrast("000000", "ffffff") == pytest.approx(21)
    assert contrast("777777", "ffffff") == pytest.approx(4.48, abs=0.01)
