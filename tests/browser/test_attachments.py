"""Images and files on the page: chosen, pasted, sent, shown, and there again after a reload."""

from __future__ import annotations

from flowtrio import ServerLimits
from tests.browser.conftest import OpenStage, Stage
from tests.support.chromium import Screen

STATUS = "document.querySelector('.turn:last-of-type').dataset.status"
SHOWN = "[...document.querySelectorAll('.turn:last-of-type .parts img')].map((i) => i.naturalWidth)"
WAITING = "document.querySelectorAll('#attachments li').length"

PHONE = Screen(390, 844, is_dark=False)


async def paste(
    stage: Stage, width: int = 8, name: str = "cat.png", type: str = "image/png"
) -> None:
    """Paste an image of so many pixels, or a file of so many bytes, into the message."""
    if type.startswith("image/"):
        blob = f"""await new Promise((resolve) => {{
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = {width};
            const context = canvas.getContext("2d");
            const pixels = context.createImageData({width}, {width});
            pixels.data.forEach((_, at, data) => (data[at] = Math.random() * 256));
            context.putImageData(pixels, 0, 0);
            canvas.toBlob(resolve, "{type}", 1);
        }})"""
    else:
        blob = f"""new Blob(["x".repeat({width})], {{ type: "{type}" }})"""
    await stage.page.run(
        f"""(async () => {{
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([{blob}], "{name}", {{ type: "{type}" }}));
            const event = new ClipboardEvent("paste", {{ clipboardData, cancelable: true }});
            document.querySelector("#message").dispatchEvent(event);
        }})()"""
    )


async def test_an_image_is_pasted_sent_and_shown(open_stage: OpenStage) -> None:
    async with open_stage(screen=PHONE) as stage:
        page = stage.page
        await paste(stage)
        await page.until(f"{WAITING} === 1")
        await stage.ask("What is it?")
        stage.model.answer("A cat.")
        await page.until(f"{STATUS} === 'completed'")

        assert await page.run(WAITING) == 0
        assert await page.run(SHOWN) == [8]
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        [request] = stage.model.requests
        assert [part["type"] for part in request[-1]["content"]] == ["text", "image_url"]


async def test_what_was_sent_is_there_again_after_a_reload(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await paste(stage)
        await page.until(f"{WAITING} === 1")
        await page.press("Enter")
        await paste(stage, 5, "a.txt", "text/plain")
        stage.model.answer("A cat.")
        await page.until(f"{STATUS} === 'completed'")
        await page.go(stage.front.url)
        await page.until(f"{STATUS} === 'completed'")
        await page.until(f"({SHOWN})[0] === 8")


async def test_a_file_is_named_and_can_be_left_out_again(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await paste(stage, 2000, "notes.txt", "text/plain")
        await page.until(f"{WAITING} === 1")
        said = await page.run("document.querySelector('#attachments .chip').textContent")
        await page.run("document.querySelector('#attachments button').click()")

        assert said == "notes.txt · 2 KB"
        assert await page.run(WAITING) == 0
        assert await page.run("document.querySelector('#attachments').hidden")


async def test_what_is_too_large_or_not_taken_is_told(open_stage: OpenStage) -> None:
    limits = ServerLimits(media_types=("image/gif",))
    async with open_stage(limits=limits) as stage:
        page = stage.page
        await paste(stage, 9 * 1024 * 1024, "large.txt", "text/plain")
        await page.until("document.querySelector('#notice').textContent.includes('too large')")
        assert await page.run(WAITING) == 0
        await paste(stage)
        await page.until(f"{WAITING} === 1")
        await stage.ask("What is it?")
        await page.until(f"{STATUS} === 'error'")

        failure = await page.run("document.querySelector('.failure').textContent")
        assert "image/png is not taken here" in failure


async def test_a_large_photo_is_made_smaller(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await paste(stage, 2100, "photo.jpg", "image/jpeg")
        await stage.page.until("document.querySelector('#attachments img')?.naturalWidth === 2048")


SLOWLY = """(() => {
  const read = FileReader.prototype.readAsDataURL;
  FileReader.prototype.readAsDataURL = function (file) {
    setTimeout(() => read.call(this, file), 150);
  };
})()"""


async def test_what_is_still_being_read_goes_with_its_message(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await page.run(SLOWLY)
        await paste(stage, 500, "a.csv", "text/csv")
        await paste(stage)
        await page.until_text("#attachments", "Reading a.csv")
        await stage.ask("What are they?")
        stage.model.answer("A table and a cat.")
        await page.until(f"{STATUS} === 'completed'")

        assert await page.run(WAITING) == 0
        [request] = stage.model.requests
        assert [part["type"] for part in request[-1]["content"]] == ["text", "file", "image_url"]
        assert page.problems == []


async def test_what_is_pasted_at_once_is_weighed_together(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await page.run(SLOWLY)
        for number in range(3):
            await paste(stage, 3 * 1024 * 1024, f"{number}.csv", "text/csv")
        await page.until_text("#notice", "2.csv is too large")

        assert await page.run(WAITING) == 2
