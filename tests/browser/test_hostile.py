"""What models, tools and other people's servers say may be odd, and the page goes on."""

from __future__ import annotations

from typing import Any, Final

from flowtrio import RunContext
from tests.support.chromium import Address, open_chromium
from tests.support.front import open_front

# What takes long

STREAM: Final = """(async ([text]) => {
  const { Markdown } = await import("./markdown.js");
  const whose = CharacterData.prototype;
  const data = Object.getOwnPropertyDescriptor(whose, "data");
  let asked = 0;
  Object.defineProperty(whose, "data", {
    ...data,
    get() {
      asked += 1;
      return data.get.call(this);
    },
  });
  const element = document.createElement("div");
  const markdown = new Markdown(element);
  for (let part = 1; part <= 60; part += 1) {
    markdown.show(text.slice(0, Math.floor((text.length * part) / 60)));
  }
  Object.defineProperty(whose, "data", data);
  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (texts.nextNode()) count += 1;
  return { asked, count, said: element.querySelector("code, p").textContent };
})(values)"""

CODE: Final = "\n".join(f"    value_{number} = compute({number})" for number in range(1000))
LINES: Final = "a line\n" * 1000 + "the end"


async def nothing(ctx: RunContext, message: str) -> None:
    pass


async def test_a_long_text_is_not_gone_through_at_each_frame(chromium: Address) -> None:
    """Each question for a node's text costs as much as the text is long."""
    async with (
        open_front(nothing) as front,
        open_chromium(chromium) as browser,
        browser.open_page() as page,
    ):
        await page.go(front.url)
        code = await page.run(STREAM, f"```py\n{CODE}\n```")
        lines = await page.run(STREAM, LINES)

    assert code["said"] == CODE
    assert code["asked"] < 60 * 10
    assert lines["said"] == LINES.replace("\n", " ")
    assert lines["count"] == 1
    assert lines["asked"] < 60 * 10


BARS: Final = """(async ([count]) => {
  const [{ Lanes }, { Timeline }] = await Promise.all(
    ["lanes", "timeline"].map((name) => import(`./${name}.js`)));
  const element = document.createElement("div");
  document.body.append(element);
  const lanes = new Lanes();
  const call = (number) => {
    const data = { call_id: `c${number}`, tool_name: "t", outcome: "ok" };
    for (const type of ["tool_call_start", "tool_call_end"]) {
      lanes.add({ type, data, agent: "root", seq: 0, timestamp: 1000 + number / 10000 });
    }
  };
  for (let number = 0; number < count; number += 1) call(number);
  const timeline = new Timeline(element, () => {});
  timeline.show(lanes);
  timeline.draw();
  const observer = new MutationObserver(() => {});
  observer.observe(element, { attributes: true, childList: true, subtree: true });
  call(count);
  timeline.draw();
  const changes = observer.takeRecords().length;
  lanes.isOver = true;
  const bars = element.querySelectorAll(".bar").length;
  element.remove();
  return { changes, bars };
})(values)"""


async def test_what_has_ended_is_not_drawn_again_at_each_frame(chromium: Address) -> None:
    async with (
        open_front(nothing) as front,
        open_chromium(chromium) as browser,
        browser.open_page() as page,
    ):
        await page.go(front.url)
        drawn = await page.run(BARS, 500)

    assert drawn["bars"] == 501
    # One bar, and the axis.
    assert drawn["changes"] < 20


# What is odd

A_TEXT: Final = {"type": "string"}
SCHEMAS: Final[list[Any]] = [
    {"type": "object", "required": True, "properties": {"a": A_TEXT}},
    {"type": "object", "required": {}, "properties": {"a": A_TEXT}},
    {"type": "object", "required": [None, 5], "properties": {"a": A_TEXT}},
    *({"type": "object", "properties": odd} for odd in (None, [], [1], "a", {"a": None}, {"a": 1})),
    *(
        {"type": "object", "properties": {"a": odd}}
        for odd in (
            {"anyOf": {}},
            {"anyOf": [None, None]},
            {"anyOf": "text"},
            {"enum": []},
            {"enum": [None, {}, [1]]},
            {"enum": {"a": 1}},
            {"$ref": 5},
            {"$ref": "#/$defs/constructor"},
            {"type": ["string", "null"]},
            {"type": "string", "title": {}, "description": []},
            {"type": "string", "maxLength": -5, "minLength": "x", "default": {}},
            {"type": "integer", "minimum": "x", "default": "y"},
        )
    ),
    {"properties": {"__proto__": A_TEXT, "constructor": A_TEXT}, "type": "object"},
    {"$ref": "#", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    *({"anyOf": 1}, {"enum": "abc"}, {"type": "string", "maxLength": -1}, {"const": 1}, {}),
]

ASK: Final = """(async ([schema]) => {
  const { Question } = await import("./asking.js");
  let answered = null;
  const answer = async (_, value) => ((answered = JSON.stringify(value) ?? "nothing"), null);
  const controls = { answer, dismiss: answer, settled() {} };
  const data = { request_id: "q1", prompt: "Well?", call_id: null, schema };
  const { element } = new Question(data, controls);
  document.body.append(element);
  const fields = element.querySelectorAll("input, select, textarea").length;
  element.querySelector("form").dispatchEvent(new Event("submit", { cancelable: true }));
  element.remove();
  return [fields > 0, answered !== null];
})(values)"""


async def test_a_question_with_an_odd_schema_can_be_answered(chromium: Address) -> None:
    async with (
        open_front(nothing) as front,
        open_chromium(chromium) as browser,
        browser.open_page() as page,
    ):
        await page.go(front.url)
        for schema in SCHEMAS:
            assert await page.run(ASK, schema) == [True, True], schema
        assert page.problems == []
