"""The runtime's public face: a bundle and audio in, words out. `docs/python.md` has a line about each name.

A name is imported when it is first used, so that `import auricle.runtime` loads no native library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__all__ = [
    "Answer",
    "AnswerEvent",
    "Answered",
    "Assistant",
    "AssistantEvent",
    "AssistantOptions",
    "AudioDropped",
    "AudioError",
    "AuricleError",
    "BundleError",
    "Caption",
    "Chat",
    "DeviceFound",
    "DeviceLost",
    "DeviceMuted",
    "Engine",
    "EngineOptions",
    "FilePlayback",
    "Final",
    "GateOptions",
    "Generation",
    "InputError",
    "Keywords",
    "KeywordsRead",
    "Lagging",
    "Live",
    "LiveEvent",
    "LiveOptions",
    "LlmOptions",
    "Microphone",
    "OrtOptions",
    "Piece",
    "RawInput",
    "RunError",
    "Scheduler",
    "SegmentComplete",
    "SegmentStarted",
    "Selection",
    "SessionEnded",
    "Source",
    "SpeechEnded",
    "SpeechStarted",
    "SystemSound",
    "Timings",
    "Transcript",
    "captions",
    "captions_async",
    "list_devices",
    "load",
    "read_audio",
    "stream_in_batches",
]

if TYPE_CHECKING:
    from ..models.errors import AudioError, AuricleError, BundleError, InputError, RunError
    from .assistant import Assistant
    from .assistant_options import AssistantOptions
    from .audio.decode import read_audio
    from .audio.selection import Selection
    from .batch import stream_in_batches
    from .chat import Chat
    from .engine import Answer, Engine, EngineOptions, load
    from .events import (
        Answered,
        AnswerEvent,
        AssistantEvent,
        AudioDropped,
        Caption,
        DeviceFound,
        DeviceLost,
        DeviceMuted,
        Final,
        KeywordsRead,
        Lagging,
        LiveEvent,
        Piece,
        SegmentComplete,
        SegmentStarted,
        SessionEnded,
        SpeechEnded,
        SpeechStarted,
        Timings,
    )
    from .keywords import Keywords
    from .live.captions import Live, LiveOptions, captions, captions_async
    from .live.gate import GateOptions
    from .llm.options import LlmOptions
    from .llm.sampling import Generation
    from .output.transcript import Transcript
    from .scheduler import Scheduler
    from .sources.microphone import Microphone
    from .sources.playback import FilePlayback, RawInput
    from .sources.portaudio import list_devices
    from .sources.source import Source
    from .sources.system_sound import SystemSound
    from .system.ort import OrtOptions
else:  # or a type checker would take every misspelt name for one that is found here
    _MODULES = {
        "..models.errors": "AudioError AuricleError BundleError InputError RunError",
        ".assistant": "Assistant",
        ".assistant_options": "AssistantOptions",
        ".audio.decode": "read_audio",
        ".audio.selection": "Selection",
        ".batch": "stream_in_batches",
        ".chat": "Chat",
        ".engine": "Answer Engine EngineOptions load",
        ".events": (
            "Answered AnswerEvent AssistantEvent AudioDropped Caption DeviceFound DeviceLost DeviceMuted Final "
            "KeywordsRead Lagging LiveEvent Piece SegmentComplete SegmentStarted SessionEnded SpeechEnded "
            "SpeechStarted Timings"
        ),
        ".keywords": "Keywords",
        ".live.captions": "Live LiveOptions captions captions_async",
        ".live.gate": "GateOptions",
        ".llm.sampling": "Generation",
        ".llm.options": "LlmOptions",
        ".output.transcript": "Transcript",
        ".scheduler": "Scheduler",
        ".sources.microphone": "Microphone",
        ".sources.playback": "FilePlayback RawInput",
        ".sources.portaudio": "list_devices",
        ".sources.source": "Source",
        ".sources.system_sound": "SystemSound",
        ".system.ort": "OrtOptions",
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

    def __getattr__(name):
        """A public name, imported from its module and kept (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}: docs/python.md lists its names")
        value = getattr(importlib.import_module(_MODULE_OF[name], __name__), name)
        globals()[name] = value
        return value

    def __dir__():
        """The public names, imported or not."""
        return sorted({*globals(), *__all__})
