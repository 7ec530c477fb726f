"""`compare`: two results -> what became slower or worse, and whether it is more than noise."""

from __future__ import annotations

import argparse
import json

from ...models.dataclass_json import encode
from ..result import read_record
from .comparison import DEVICE, compare, lines


def run(arguments: argparse.Namespace) -> int:
    """`compare BEFORE AFTER`: the table, then the comparison as one JSON line.

    1 on a regression beyond noise; a device that is slower than another is none.
    """
    from . import page  # it shows what this module finds

    if arguments.report:
        page.require_writable(arguments.report)
    before = read_record(arguments.before)
    after = read_record(arguments.after)
    comparison = compare(before, after)
    print("\n".join(lines(comparison)))
    print(json.dumps(encode(comparison), ensure_ascii=False))
    if arguments.report:
        page.write([after, before], arguments.report, comparison)
    return 1 if comparison.command != DEVICE and comparison.with_verdict("worse") else 0
