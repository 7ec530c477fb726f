"""Signature: the first bytes of a stream -> the name of its container, or none, where it may be raw PCM."""

from __future__ import annotations

import re

from .mpeg_audio import Parse, adts_header, mp3_header

LONGEST = 1 << 15
"""Bytes: no stream needs more to be told."""
_LEAST = 64
_TS_PACKET = 188
_FRAMES = 3  # in a row: two bytes of PCM may look like one frame's header

_SIGNATURES = (
    (rb"RIFF....AVI ", "an AVI file"),
    (rb"RIFF|RIFX|RF64|BW64|riff\x2e\x91\xcf\x11", "a WAV file"),
    (rb"\x1a\x45\xdf\xa3.{0,40}webm", "a WebM file"),
    (rb"\x1a\x45\xdf\xa3", "a Matroska file"),
    (rb"OggS", "an Ogg file"),
    (rb"fLaC", "a FLAC file"),
    (rb"ID3[\x02-\x04][^\xff]", "an MP3 file"),
    (rb"....(ftyp|styp|moov|moof|mdat|wide|skip|free|pnot)", "an MP4 file"),
    (rb"FORM....(AIF|8SV|16S)", "an AIFF file"),
    (rb"caff\0", "a CAF file"),
    (rb"\.snd\0", "an AU file"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMA file"),
    (rb"#!AMR", "an AMR file"),
    (rb"FLV\x01", "an FLV file"),
    (rb"wvpk", "a WavPack file"),
    (rb"MAC ", "a Monkey's Audio file"),
    (rb"TTA[12]", "a TTA file"),
    (rb"MPCK|MP\+", "a Musepack file"),
    (rb"Creative Voice File", "a VOC file"),
    (rb"NIST_1A", "a NIST file"),
    (rb"DSD |FRM8", "a DSD file"),
    (rb"\.RMF", "a RealMedia file"),
    (rb"\x00\x00\x01\xba", "an MPEG file"),
)
_STREAMS: tuple[tuple[Parse, str], ...] = ((mp3_header, "an MP3 file"), (adts_header, "an AAC file"))


def container_name(head: bytes) -> str | None:
    """Such as "an MP3 file"; None for what begins like none. head: as much as bytes_to_tell wants, or all there is."""
    for pattern, name in _SIGNATURES:
        if re.match(pattern, head, re.DOTALL):
            return name
    if all(_is_ts_packet(head[at : at + 4]) for at in (0, _TS_PACKET, 2 * _TS_PACKET)):
        return "an MPEG transport stream"
    return next((name for parse, name in _STREAMS if _n_frames(head, parse)[0] == _FRAMES), None)


def bytes_to_tell(head: bytes) -> int:
    """How much there must be of a stream that begins so before container_name knows."""
    ends = [_n_frames(head, parse)[1] for parse, _ in _STREAMS]
    packets = 2 * _TS_PACKET + 4 if head.startswith(b"G") else 0
    return min(LONGEST, max(_LEAST, packets, *ends))


def _is_ts_packet(head: bytes) -> bool:
    """No transport error, and a payload or an adaptation field."""
    return len(head) == 4 and head[0] == ord("G") and head[1] < 0x80 and head[3] & 0x30 != 0


def _n_frames(head: bytes, parse: Parse) -> tuple[int, int]:
    """How many frames follow each other from the beginning, and how much there must be to look for the next."""
    at = 0
    for n in range(_FRAMES):
        header = parse(head[at : at + 7])
        if header is None:
            return n, at + 7 if at + 7 > len(head) else 0
        at += header.size
    return _FRAMES, 0
