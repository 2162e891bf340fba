"""An OpenAI-compatible server: agents in the place of models, for any library that speaks that.

::

    GET  /v1/models, /v1/models/{id}   the agents
    POST /v1/chat/completions          a run that the client holds the conversation of
    POST /v1/responses                 a run that the server does; all of these in `_stored`
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

from flowtrio.serving._access import Refused
from flowtrio.serving.http._protocol import ProtocolRoute, Visit
from flowtrio.serving.http._segments import Segment, Waits
from flowtrio.wire._frames import AnswerCommand

from ._chat import ChatMapper, Item, encode_item, fold
from ._errors import error_body
from ._requests import ChatRequest, Options, check_model, read_chat
from ._stored import Responses

OWNER: Final = "flowtrio"


@attrs.frozen(kw_only=True)
class OpenAIProtocol(Options):
    """Agents behind the addresses of OpenAI's: for ``create_app(protocols=[OpenAIProtocol()])``.

    A client's own tools are run by the client; nobody is asked for approval by default, as in
    `Orchestrator.process`.

    Args:
      roles: Whose messages of a client's conversation are taken; others are left out.
      settings: Fields of a request that the agent's model is given, such as ``temperature``. Others
        are left out; ``stop``, ``response_format`` and a ``tool_choice`` that calls for a tool are
        refused instead.
      approvals: Whether clients of Responses are asked for approval, as they are for MCP's tools.
      hold: Whether a message is sent when it is complete: nothing is sent then that a model takes
        back, and nothing word by word.
      show_tools: Whether calls that the server runs are told, each as a line of reasoning.

    Raises:
      ValueError: a role or a field is unknown.

    """

    @property
    def routes(self) -> Sequence[ProtocolRoute]:
        """See `HTTPProtocol`."""
        responses = Responses(self)
        return [
            ProtocolRoute("GET", "/v1/models", self._models),
            ProtocolRoute("GET", "/v1/models/{}", self._model),
            ProtocolRoute("POST", "/v1/chat/completions", self._chat),
            ProtocolRoute("POST", "/v1/responses", responses.create),
            ProtocolRoute("GET", "/v1/responses/{}", responses.read),
            ProtocolRoute("DELETE", "/v1/responses/{}", responses.delete),
            ProtocolRoute("GET", "/v1/responses/{}/input_items", responses.input_items),
            ProtocolRoute("POST", "/v1/responses/{}/cancel", responses.cancel),
        ]

    def refuse(self, status: int, code: str, error: str) -> Any:
        """See `HTTPProtocol`."""
        return error_body(status, code, error)

    # Models

    async def _models(self, visit: Visit) -> None:
        models = [_model(name) for name in visit.agents]
        await visit.exchange.answer_json(200, {"object": "list", "data": models})

    async def _model(self, visit: Visit, name: str) -> None:
        check_model(name, visit.agents)
        await visit.exchange.answer_json(200, _model(name))

    # Chat completions

    async def _chat(self, visit: Visit) -> None:
        body = await visit.read_json()
        limits = visit.hosting.limits
        request = read_chat(body, limits, roles=self.roles, settings=self.settings)
        check_model(request.model, visit.agents)
        if request.message is None:
            await self._go_on(visit, request)
        else:
            await self._begin(visit, request)

    async def _begin(self, visit: Visit, request: ChatRequest) -> None:
        """Start a run."""
        assert request.message is not None
        telling = _Telling(self, request)
        _, refusal = await visit.answer(
            request.message,
            telling.segment,
            session_id=None,
            agent=request.model,
            attended=False,
            resume_window=0,
            is_whole=not request.is_streamed,
            history=request.history,
            tools=request.tools,
            model_settings=request.settings,
        )
        await telling.send(visit, refusal)

    async def _go_on(self, visit: Visit, request: ChatRequest) -> None:
        """Answer the calls of a run that waits for them, and tell what follows."""
        run_id = _run_of(request.answers)
        async with AsyncExitStack() as held:
            held.enter_context(visit.seated(run_id))
            waits = await visit.waits_of(run_id)
            place = await visit.last_of(run_id)
            decided = await answer_calls(visit, run_id, waits, request.answers)
            telling, refusal = _Telling(self, request), None
            answer = telling.segment(run_id, place, decided)
            if request.is_streamed:
                await visit.follow(run_id, answer, held)
            else:
                refusal = await visit.gather(run_id, answer, held)
        await telling.send(visit, refusal)


@attrs.define(eq=False)
class _Telling:
    """An answer of chat completions, streamed or whole."""

    protocol: OpenAIProtocol
    request: ChatRequest
    items: list[Item] = attrs.field(factory=list, init=False)
    mapper: ChatMapper = attrs.field(init=False)

    def segment(self, run_id: str, after: int = -1, decided: Collection[str] = ()) -> Segment[Item]:
        """The answer of a run."""
        is_streamed = self.request.is_streamed
        self.mapper = ChatMapper(
            run_id=run_id,
            model=self.request.model,
            client_tools=frozenset(tool.name for tool in self.request.tools),
            is_held=self.protocol.hold or not is_streamed,
            shows_usage=self.request.shows_usage or not is_streamed,
            shows_tools=self.protocol.show_tools,
        )
        return Segment(
            mapper=self.mapper,
            encode=encode_item if is_streamed else self._keep,
            after=after,
            decided=decided,
            waits=Waits(is_attended=False),
            is_only_here=True,
        )

    def _keep(self, item: Item) -> bytes:
        self.items.append(item)
        return b""

    async def send(self, visit: Visit, refusal: Any) -> None:
        """Send an answer that is asked for as a whole."""
        if self.request.is_streamed:
            return None
        if refusal is not None:
            self.mapper.fail(*refusal)
        if failure := self.mapper.ending.failure:
            return await visit.exchange.answer_json(failure.status, failure.body, failure.headers)
        return await visit.exchange.answer_json(200, fold(self.items))


async def answer_calls(
    visit: Visit, run_id: str, waits: Waits, answers: Mapping[str, str]
) -> list[str]:
    """Give a run results of its calls; give what it asked by. `Refused` if none of them waits."""
    asked = {f"{run_id}:{e.data['call_id']}": key for key, e in waits.questions.items()}
    known = [call_id for call_id in answers if call_id in asked]
    if not known:
        raise Refused(400, "no call of these ids waits for its result", "tool_call_not_found")
    for call_id in known:
        command = AnswerCommand(run_id=run_id, request_id=asked[call_id], text=answers[call_id])
        await visit.control(run_id, command)
    return [asked[call_id] for call_id in known]


def _run_of(answers: Mapping[str, str]) -> str:
    """The run whose calls are answered: that of the last one."""
    return [*answers][-1].rpartition(":")[0]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}
