"""Django in one file: an asynchronous view that streams, on any ASGI server.

    uvicorn examples.django_app:app --timeout-graceful-shutdown 10

Try ``curl -N 'http://127.0.0.1:8000/ask?message=hello'``.
"""

from collections.abc import AsyncIterator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

from flowtrio import DemoClient, EventType, Orchestrator, RunFailed
from flowtrio.aio import Bridge

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])
orchestrator = Orchestrator(llm_client=DemoClient())


async def ask(request: HttpRequest) -> HttpResponseBase:
    message = request.GET.get("message", "")

    async def text() -> AsyncIterator[str]:
        async for event in orchestrator.process_stream(message):
            if event.type is EventType.MESSAGE_CHUNK:
                yield event.data["chunk"]

    return StreamingHttpResponse(text(), content_type="text/plain")


async def answer(request: HttpRequest) -> HttpResponseBase:
    async with Bridge() as bridge:
        try:
            result = await bridge.call(orchestrator.process, request.GET.get("message", ""))
        except RunFailed as failed:
            return JsonResponse({"error": str(failed)}, status=502)
    return JsonResponse({"result": result})


urlpatterns = [path("ask", ask), path("answer", answer)]
app = get_asgi_application()
