"""What a person is asked that is more than a line, and how they decline it or change it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec

from flowtrio import RunContext, ToolCall, tool
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_accessible import check_accessible, find_axe
from tests.support.chromium import Screen

STATUS = "document.querySelector('.turn:last-of-type').dataset.status"


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Order:
    """One field of every kind."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    count: Annotated[int, msgspec.Meta(ge=1, le=9)]
    size: Size
    colour: Literal["red", "blue"]
    weight: float = 1.5
    is_gift: bool = False
    note: str = ""
    floor: int | None = None
    is_urgent: bool | None = None


@dataclass
class Basket:
    """What no single fields are for."""

    orders: list[str]


def asking(schema: Any) -> Any:
    async def agent(ctx: RunContext, message: str) -> Any:
        return await ctx.ask("What do you want?", schema)

    return agent


FIELDS = """Object.fromEntries([...document.querySelectorAll(".ask label")].map((label) =>
  [label.querySelector("span").textContent,
   label.querySelector("input, select, textarea").type]))"""


def field(name: str) -> str:
    """The field below this label, as a script."""
    return (
        "[...document.querySelectorAll('.ask label')].find((label) => "
        f"label.querySelector('span').textContent === '{name}').querySelector('input, select')"
    )


async def fill(stage: Stage, name: str, value: str) -> None:
    """Put a text into a field, or choose it."""
    await stage.page.run(
        f"""void ((node) => {{
          if (node.type === "checkbox") return node.click();
          if (node instanceof HTMLSelectElement) {{
            node.selectedIndex = [...node.options].findIndex(({{ text }}) => text === values[0]);
          }} else node.value = values[0];
          node.dispatchEvent(new Event("input", {{ bubbles: true }}));
        }})({field(name)})""",
        value,
    )


async def resolved(stage: Stage) -> dict[str, Any]:
    """What INPUT_RESOLVED says, as the list of events shows it."""
    await stage.page.click("#tab-events")
    await stage.page.until("document.querySelector('[data-type=input_resolved]')")
    await stage.page.run("document.querySelector('[data-type=input_resolved]').open = true")
    await stage.page.until("document.querySelector('[data-type=input_resolved] pre')")
    text = await stage.page.run(
        "document.querySelector('[data-type=input_resolved] pre').textContent"
    )
    data: dict[str, Any] = msgspec.json.decode(text)["data"]
    return data


async def test_a_schema_becomes_a_form_with_a_field_of_each_kind(open_stage: OpenStage) -> None:
    async with open_stage(agent=asking(Order)) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".ask .answers input")

        assert await page.run(FIELDS) == {
            "name": "text",
            "count": "number",
            "size": "select-one",
            "colour": "select-one",
            "weight": "number",
            "is_gift": "checkbox",
            "note": "text",
            "floor": "number",
            "is_urgent": "select-one",
        }

        await fill(stage, "name", "Ada")
        await fill(stage, "count", "3")
        await fill(stage, "size", "large")
        await fill(stage, "colour", "blue")
        await fill(stage, "is_gift", "")
        await page.click(".ask .primary")
        await page.until(f"{STATUS} === 'completed'")
        await page.until_text(".ask .reply", '"colour": "blue"')

        told = await resolved(stage)
        assert told["outcome"] == "answered"
        assert msgspec.json.decode(told["text"]) == {
            "name": "Ada",
            "count": 3,
            "size": "large",
            "colour": "blue",
            "weight": 1.5,
            "is_gift": True,
        }
        assert page.problems == []


async def test_what_may_be_left_out_and_what_may_be_nothing(open_stage: OpenStage) -> None:
    async with open_stage(agent=asking(Order)) as stage:
        await stage.ask("go")
        await stage.page.until_seen(".ask .answers input")
        for name, value in [
            ("name", "Ada"),
            ("count", "3"),
            ("floor", "2"),
            ("is_urgent", "false"),
            ("weight", ""),
        ]:
            await fill(stage, name, value)
        await stage.page.click(".ask .primary")
        await stage.page.until(f"{STATUS} === 'completed'")
        answer = msgspec.json.decode((await resolved(stage))["text"])

    assert (answer["floor"], answer["is_urgent"], "weight" in answer) == (2, False, False)


async def test_a_form_is_read_from_its_top_and_its_first_field_has_the_keyboard(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(agent=asking(Order), screen=screen) as stage:
        await stage.ask("go")
        await stage.page.until("document.activeElement?.name === 'name'")
        await stage.page.until_seen(".ask .prompt")


async def test_a_field_that_is_wrong_is_told_before_anything_is_sent(
    open_stage: OpenStage,
) -> None:
    async with open_stage(agent=asking(Order)) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".ask .answers input")
        invalid = "[...document.querySelectorAll('.ask label :invalid')].map((n) => n.name)"

        assert await page.run(invalid) == ["name", "count"]

        await fill(stage, "name", "Ada")
        await fill(stage, "count", "12")
        await page.click(".ask .primary")

        assert await page.run(f"{field('count')}.validationMessage") != ""
        assert await page.run("document.querySelector('.ask form') !== null")
        assert await page.run(STATUS) == "waiting_for_input"


async def test_what_the_server_refuses_is_told_in_the_form_and_can_be_mended(
    open_stage: OpenStage,
) -> None:
    """A rule that no field knows: only the server can say that it is broken."""

    @dataclass
    class Even:
        count: Annotated[int, msgspec.Meta(multiple_of=2)]

    async with open_stage(agent=asking(Even)) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".ask .answers input")
        await fill(stage, "count", "3")
        await page.click(".ask .primary")
        await page.until_text(".ask .wrong", "multiple of 2")

        assert await page.run(f"{field('count')}.value") == "3"
        assert not await page.run(f"{field('count')}.disabled")

        await fill(stage, "count", "4")
        await page.click(".ask .primary")
        await page.until(f"{STATUS} === 'completed'")
        await page.until_text(".ask .reply", '"count": 4')


async def test_what_has_no_fields_is_written_as_json(open_stage: OpenStage) -> None:
    async with open_stage(agent=asking(Basket)) as stage:
        page = stage.page
        await stage.ask("go")
        await page.type(".ask textarea", "{orders")
        await page.click(".ask .primary")

        assert await page.run("document.querySelector('.ask textarea').validationMessage") == (
            "This is not JSON."
        )

        await page.run("document.querySelector('.ask textarea').value = ''")
        await page.type(".ask textarea", '{"orders": ["tea"]}')
        await page.click(".ask .primary")
        await page.until(f"{STATUS} === 'completed'")

        assert msgspec.json.decode((await resolved(stage))["text"]) == {"orders": ["tea"]}


async def test_a_single_value_has_one_field_of_its_kind(open_stage: OpenStage) -> None:
    async def agent(ctx: RunContext, message: str) -> list[Any]:
        kinds: tuple[Any, ...] = (int, Literal["milk", "tea"], bool, int | None)
        return [await ctx.ask(f"{kind}", kind) for kind in kinds]

    async with open_stage(agent=agent) as stage:
        page = stage.page
        await stage.ask("go")
        for place, (kind, act) in enumerate(
            [
                ("number", "node.value = '7'"),
                ("select-one", "node.value = 'tea'"),
                ("checkbox", "node.checked = true"),
                ("number", ""),
            ]
        ):
            form = f".ask:nth-of-type({place + 1}) form"
            node = f"document.querySelector('{form} [aria-label=\"Your answer\"]')"
            await page.until(f"{node}?.type === '{kind}'")
            await page.run(f"void ((node) => {{ {act} }})({node})")
            await page.click(f"{form} .primary")
        await page.until(f"{STATUS} === 'completed'")
        said = await page.run("[...document.querySelectorAll('.reply')].map((n) => n.textContent)")

    assert said == ["7", "tea", "true", "null"]


async def test_a_question_is_declined(open_stage: OpenStage) -> None:
    async with open_stage(agent=asking(None)) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".ask form")
        decline = (
            "[...document.querySelectorAll('.ask button')].find((b) => b.textContent === 'Decline')"
        )
        await page.run(f"{decline}.click()")
        await page.until(f"{STATUS} === 'error'")
        await page.until_text(".ask", "What do you want?\nDeclined")

        assert (await resolved(stage))["outcome"] == "declined"


@tool(needs_approval=True)
async def pay(amount: int, to: str) -> str:
    """Pay."""
    return f"paid {amount} to {to}"


async def ask_to_pay(stage: Stage) -> None:
    await stage.ask("pay")
    stage.model.call(ToolCall(id="1", name="pay", arguments={"amount": 100, "to": "Ada"}))
    await stage.page.click("[aria-label='Edit the arguments of pay']")
    await stage.page.until("document.activeElement.matches('.edited')")


async def write(stage: Stage, text: str) -> None:
    await stage.page.run("document.querySelector('.edited').value = ''")
    await stage.page.type(".edited", text)
    await stage.page.click("[aria-label='Approve pay']")


async def test_arguments_are_edited_before_they_are_approved(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(pay, screen=screen) as stage:
        page = stage.page
        await ask_to_pay(stage)
        await write(stage, '{"amount": 5, "to": "Bob"}')
        await page.until("document.querySelector('.call[data-outcome=ok]')")
        stage.model.answer("Paid.")
        await page.until(f"{STATUS} === 'completed'")
        await page.click(".call summary")

        await page.until_text(".call dl", "paid 5 to Bob")
        # What was asked for and what was let go are both there to be read.
        facts = await page.run(
            "[...document.querySelectorAll('.call dt')].map((n) => n.textContent)"
        )
        assert facts == ["Arguments", "Edited to", "Result"]
        assert await page.run("document.querySelector('.call .gist').textContent") == (
            "amount: 5, to: Bob"
        )
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_an_edit_that_is_no_object_is_told_and_not_sent(open_stage: OpenStage) -> None:
    async with open_stage(pay) as stage:
        page = stage.page
        await ask_to_pay(stage)
        for wrong in ('{"amount": 5,', "[5]", "null"):
            await write(stage, wrong)

            assert await page.run("document.querySelector('.edited').validationMessage") == (
                "This is not a JSON object."
            )
            assert await page.run(STATUS) == "waiting_for_approval"


async def test_an_edit_that_does_not_fit_the_tool_is_told_and_can_be_mended(
    open_stage: OpenStage,
) -> None:
    async with open_stage(pay) as stage:
        page = stage.page
        await ask_to_pay(stage)
        await write(stage, '{"amount": "all", "to": "Ada"}')
        await page.until_text(".call .wrong", "amount")
        await page.until("!document.querySelector('.edited').disabled")
        await write(stage, '{"amount": 1, "to": "Ada"}')
        await page.until("document.querySelector('.call[data-outcome=ok]')")

        assert await page.run("document.querySelector('.wrong')") is None
        assert page.problems == []


async def test_axe_finds_nothing_in_the_form_and_the_editor(
    open_stage: OpenStage, screen: Screen
) -> None:
    axe = find_axe()

    async def agent(ctx: RunContext, message: str) -> Any:
        await ctx.ask("What do you want?", Order)
        await ctx.call(pay, amount=1, to="Ada")

    async with open_stage(agent=agent, screen=screen) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".ask .answers input")
        await check_accessible(stage.page, axe)
        await fill(stage, "name", "Ada")
        await fill(stage, "count", "3")
        await page.click(".ask .primary")
        await page.click("[aria-label='Edit the arguments of pay']")
        await write(stage, '{"amount": "all"}')
        await page.until_seen(".call .wrong")
        await check_accessible(stage.page, axe)
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
