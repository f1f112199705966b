"""How much memory is free."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path


def available_memory() -> int:
    """Return the bytes that new processes may use of this machine or container; 0 if that is not known."""

    def numbers(path: str) -> dict[str, int]:
        with contextlib.suppress(OSError):
            text = re.sub(" kB|max", "", Path(path).read_text(encoding="utf-8"))
            return {words[0]: int(words[-1]) for words in map(str.split, text.splitlines()) if words}
        return {}

    machine = numbers("/proc/meminfo").get("MemAvailable:", 0) * 2**10
    group = "/sys/fs/cgroup/memory"
    for limit in numbers(f"{group}.max").values():
        used = sum(numbers(f"{group}.current").values()) - numbers(f"{group}.stat").get("inactive_file", 0)
        machine = min(machine, max(limit - used, 1))
    return machine
