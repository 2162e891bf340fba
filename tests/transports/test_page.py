"""The page's files and headers."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from flowtrio.transports._page import PageFile, page_headers, read_page

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
    assert {"app.js", "flowtrio.js", "style.css", "icon.svg"} <= set(PAGE)
    assert PAGE["flowtrio.js"].media_type == "text/javascript; charset=utf-8"


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
    assert not re.search("unsafe|data:|blob:|[*]", policy)


def test_an_etag_is_of_the_content() -> None:
    etags = {file.body: file.etag for file in PAGE.values()}

    assert len(set(etags.values())) == len(etags)
    assert all(re.fullmatch('"[0-9a-f]{32}"', etag) for etag in etags.values())
