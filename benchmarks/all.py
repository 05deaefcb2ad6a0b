"""Every benchmark, one after the other, as one Markdown document on stdout. Exits with 1 when one of them failed.

python benchmarks/all.py > figures.md       # half an hour on an idle machine; --quick: two minutes, no figures
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from measure import parser, tell

PROGRAMS = ("record", "processes", "flush", "pacing", "latency", "answer", "peers", "imports", "ingest", "scale")


def main() -> int:
    """Run them; 1 when one failed, which the document names at its end."""
    options = parser(__doc__).parse_args()
    print("# Figures\n", flush=True)
    failed = [name for name in PROGRAMS if _run(name, ["--dir", str(options.dir), *["--quick"] * options.quick])]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, arguments: list[str]) -> int:
    tell(f"-- {name}")
    program = Path(__file__).with_name(f"{name}.py")
    return subprocess.run([sys.executable, str(program), *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
