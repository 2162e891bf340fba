"""A conversation of two turns: text as it streams, tools as they run, history kept.

python examples/two_turns.py
"""

import trio

from flowtrio import Agent, DemoClient, EventType, StreamEngine, tool


@tool
async def forecast(city: str, days: int = 3) -> list[str]:
    """Weather forecast for a city, one line a day."""
    return [f"{city}, day {day}: sunny" for day in range(days)]


async def main() -> None:
    # OpenAIClient(model="gpt-4o-mini") in place of DemoClient() is a real model.
    agent = Agent(llm_client=DemoClient(), tools=[forecast])
    history: list[dict[str, object]] = []
    for question in ["What is the weather like in Paris?", "And in Rome?"]:
        print(f"\n> {question}")
        async with StreamEngine().stream(agent, question, history=history) as stream:
            async for event in stream:
                if event.type is EventType.MESSAGE_CHUNK:
                    print(event.data["chunk"], end="", flush=True)
                elif event.type is EventType.TOOL_CALL_START:
                    print(f"\n[{event.data['tool_name']} {event.data['arguments']}]")
        history = stream.messages  # Valid however the run ended.
    print(f"\n\nThe conversation has {len(history)} messages.")


trio.run(main)
