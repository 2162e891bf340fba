"""Images and files in a request of OpenAI's chat completions, as its hosts take them."""

from __future__ import annotations

from typing import Any, Final

import attrs

from flowtrio._core._media import Media

from ._media import media_of, name_of, refused

_SOUNDS: Final = {"audio/wav": "wav", "audio/mpeg": "mp3"}
"""Sounds that models hear, by the names of their formats."""


@attrs.frozen(kw_only=True)
class ChatMedia:
    """How a host takes images and files."""

    host: str
    """Its name in messages."""
    takes: str
    """What it takes, for people."""
    takes_files: bool = True
    """Whether there is a part for files."""
    sound_prefix: str = ""
    """What stands before a sound's base64."""

    def encode(self, part: Any) -> Any:
        """A part as the host takes it; what is none of ours is handed on as it is."""
        match part:
            case {"type": "file", "file": {"file_data": _} | {"file_url": _}}:
                return self._encode_file(media_of(part, self.host))
            case {"flowtrio": _}:
                return {key: value for key, value in part.items() if key != "flowtrio"}
            case _:
                return part

    def _encode_file(self, media: Media) -> dict[str, Any]:
        if media.is_image:
            return {"type": "image_url", "image_url": {"url": media.to_url()}}
        kind, _, _ = (media.media_type or "").partition("/")
        if kind == "audio" and media.data is not None and media.media_type in _SOUNDS:
            sound = {
                "data": self.sound_prefix + media.data,
                "format": _SOUNDS[media.media_type],
            }
            return {"type": "input_audio", "input_audio": sound}
        if media.data is None or not self.takes_files or kind in ("audio", "video"):
            raise refused(media, self.host, self.takes)
        file = {"filename": name_of(media), "file_data": media.to_url()}
        return {"type": "file", "file": file}


OPENAI: Final = ChatMedia(
    host="OpenAI's chat completions",
    takes="images, the content of documents, and sounds in WAV and MP3",
)
DASHSCOPE: Final = ChatMedia(
    host="DashScope",
    takes="images, and sounds in WAV and MP3",
    takes_files=False,
    sound_prefix="data:;base64,",
)
