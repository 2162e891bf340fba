"""Traces and metrics of runs, by OpenTelemetry's conventions for generative AI.

Only OpenTelemetry's API is used here: where spans go, and whether anywhere, is the application's.
"""

try:
    import opentelemetry.trace as _trace  # noqa: F401
except ImportError as _exc:
    raise ImportError(
        f"flowtrio.otel needs {_exc.name!r}: pip install 'flowtrio[otel]'", name=_exc.name
    ) from None

from flowtrio._core._util import publish as _publish
from flowtrio.otel._logs import LogFilter as LogFilter
from flowtrio.otel._telemetry import OpenTelemetry as OpenTelemetry

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
