"""Devices that were not here: public figures of each, with where they stand, for `auricle-bench fit --device`.

read       GB/s that one core reads from memory (tinymembench's fastest load; several cores may reach more)
datasheet  GB/s of the memory by its width and rate: no program reads faster
hpl        GFLOP/s of all cores in High-Performance Linpack, which multiplies float64: float32 is taken as twice that
dot        whether the cores have dot products of bytes (asimddp, avx_vnni)
taken      GiB that are gone before a program starts: held back by firmware, and the system's own
"""

from __future__ import annotations

from dataclasses import dataclass

from .limits import Limits

FP32_PER_HPL = 2.0
INT8_PER_FP32 = 3.6
"""With dot products, as measured in docs/performance.md; without, integers are taken to gain nothing."""
FORECAST = "FORECAST"
"""How the note begins that stands above the table."""
_SBC = "https://github.com/ThomasKaiser/sbc-bench/blob/53f795176f2876cffac8cfd93395ee01e031f6ee/results/"
_TOP = "https://github.com/geerlingguy/top500-benchmark/issues/"


@dataclass(frozen=True)
class Device:
    """One device as sold, on its CPU alone."""

    title: str
    memory_gib: float
    taken_gib: float
    cores: int
    read_gb_s: float
    datasheet_gb_s: float | None
    """None: no source of it was found."""
    hpl_gflops: float
    dot: bool
    sources: tuple[str, ...]
    """Where each figure stands."""

    @property
    def usable_bytes(self) -> float:
        """What a program can have."""
        return (self.memory_gib - self.taken_gib) * 2**30

    @property
    def fp32_gflops(self) -> float:
        """Products of matrices, all cores."""
        return FP32_PER_HPL * self.hpl_gflops

    @property
    def int8_gops(self) -> float:
        """The same in integers."""
        return self.fp32_gflops * (INT8_PER_FP32 if self.dot else 1.0)

    def limits(self) -> Limits:
        """In the place of what is measured on a machine that is here."""
        return Limits((self.fp32_gflops,), (self.int8_gops,), (self.read_gb_s,))

    def notes(self) -> list[str]:
        """That it is a forecast, by which rule, and where the figures stand."""
        integers = f"{INT8_PER_FP32:g} times that" if self.dot else "no faster: its cores have no dot products of bytes"
        reading = f"decoding is bound by reading {self.read_gb_s:g} GB/s, as one core was seen to"
        if self.datasheet_gb_s:
            more = self.datasheet_gb_s / self.read_gb_s
            reading += f"; the datasheet's {self.datasheet_gb_s:g} would make tokens/s {more:.1f} times as many at best"
        return [
            f"{FORECAST}, nothing was run on it: {self.title}",
            "rule: work / (share x limit); share: what was reached of the limit on two Zen 4 cores; limit: the "
            f"device's, fp32 as twice its Linpack, int8 {integers}",
            reading,
            *self.sources,
        ]


DEVICES = {
    "rpi5": Device(
        *("Raspberry Pi 5, 8 GB", 8, 0.3, 4, 14.9, 17.1, 35.2, True),
        (
            f"read 14.9, dot, taken (of 4 GB, without a desktop): {_SBC}8-NK.txt, {_SBC}Au3jaA.txt",
            "datasheet 17.1, 32 bits at 4267 MT/s: https://circuitdigest.com/news/the-new-raspberry-pi-5-is-here-faster-than-ever",
            f"hpl 35.2: {_TOP}18",
        ),
    ),
    "rpi4": Device(
        *("Raspberry Pi 4, 8 GB", 8, 0.6, 4, 4.4, None, 11.9, False),
        (
            f"read 4.4, taken (of 1 GB, without a desktop), no dot: {_SBC}4pzj.txt",
            "taken, by firmware of 8 GB: https://github.com/ThomasKaiser/sbc-bench/issues/136",
            f"hpl 11.9: {_TOP}13",
        ),
    ),
    "orange-pi-5": Device(
        *("Orange Pi 5 (RK3588S), 8 GB, four A76 and four A55", 8, 0.6, 8, 21.4, 34.1, 53.3, True),
        (
            f"read 21.4 (an A76), dot, taken: {_SBC}4D0a.txt",
            "datasheet 34.1, 64 bits at 4267 MT/s: https://forum.radxa.com/t/rock-5a-lpddr4x-memory-bandwidth/19293",
            f"hpl 53.3: {_TOP}14",
        ),
    ),
    "n100": Device(
        *("Intel N100, 8 GB", 8, 1.7, 4, 13.3, 38.4, 37.2, True),
        (
            f"read 13.3 (plain 64-bit loads), dot, taken: {_SBC}uHzXI7.txt",
            "datasheet 38.4, one channel of DDR5-4800: "
            "https://notebookcheck.com/N100-vs-Z8350-vs-N50_14932_8088_14971.247552.0.html",
            f"hpl 37.2 (Radxa X4; 62.9 where it may draw 25 W, {_TOP}30): {_TOP}38",
        ),
    ),
    "jetson-orin-nano": Device(
        *("Jetson Orin Nano, 8 GB, on its six CPU cores", 8, 2.6, 6, 9.8, 68.0, 33.2, True),
        (
            f"read 9.8, dot, taken: {_SBC}4vy7.txt",
            "datasheet 68, shared with its GPU: https://ericxliu.me/posts/benchmarking-llms-on-jetson-orin-nano",
            f"hpl 33.2: none was found; the Raspberry Pi 5's per core and clock ({_TOP}18), six cores at 1.51 GHz",
            "its GPU is left out: what share of its limits a GPU reaches was never measured",
        ),
    ),
}
"""By the name that --device takes."""
