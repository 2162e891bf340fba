"""A stop button in another thread: every control of a stream may be called from anywhere.

python examples/stop_button.py
"""

import threading

import trio

from flowtrio import Agent, DemoClient, EventType, StreamEngine


async def main() -> None:
    agent = Agent(llm_client=DemoClient())
    async with StreamEngine().stream(agent, "Tell me something long") as stream:
        # What a user interface would do: ui.stop.on_click(lambda: stream.cancel("stop button"))
        button = threading.Timer(0.4, stream.cancel, ["stop button"])
        button.start()
        async for event in stream:
            if event.type is EventType.MESSAGE_CHUNK:
                print(event.data["chunk"], end="", flush=True)
            elif event.type is EventType.DONE:
                print(f"\n{event.data['status']}: {event.data['reason']}")
    button.join()
    print("What was said so far is kept:", stream.messages[-1]["flowtrio"])


trio.run(main)
