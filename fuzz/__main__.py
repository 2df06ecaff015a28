"""`python -m fuzz --seconds 60`: all targets share the time. `--target NAME` is one of them alone.

What is found is written to fuzz/found/NAME-...; put it into fuzz/corpus/NAME/ once it is mended,
where the tests run it for ever.
"""

import argparse
import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fuzz.targets

_HERE = Path(__file__).parent
TARGETS = sorted(module.name for module in pkgutil.iter_modules(fuzz.targets.__path__))
_LONGEST_INPUT = 4096
"""Bytes."""
_START = 2.0
"""Seconds that a target takes to be instrumented."""
_SLOWEST = 10
"""Seconds that one input may take."""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    arguments.add_argument("--target", choices=TARGETS, help="this one alone")
    arguments.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.inside:
        return _fuzz(given.target, given.seconds)
    try:
        import atheris  # noqa: F401
    except ImportError as error:
        print(f"fuzzing needs atheris: pip install '.[fuzz]' ({error})", file=sys.stderr)
        return 2
    targets = [given.target] if given.target else TARGETS
    jobs = min(given.jobs, len(targets))
    each = max(1.0, given.seconds * jobs / len(targets) - _START)
    with ThreadPoolExecutor(jobs) as pool:
        failed = [name for name in pool.map(lambda name: _run(name, each), targets) if name]
    if failed:
        print(f"found something in: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(target: str, seconds: float) -> str | None:
    """Fuzz a target in a process of its own; its name if that found something."""
    command = [sys.executable, "-m", "fuzz", "--inside", "--target", target]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        ended = subprocess.run(
            [*command, "--seconds", str(seconds)],
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            errors="replace",
        )
    told = ended.stderr.strip().splitlines()
    runs = [line for line in told if line.startswith("Done")]
    print(f"{target}: {runs[-1] if runs else f'ended with {ended.returncode}'}", flush=True)
    if not ended.returncode and runs:
        return None
    noise = ("INFO", "WARNING", "#")
    print(ended.stdout + "\n".join(line for line in told if not line.startswith(noise)), flush=True)
    return target


def _fuzz(target: str, seconds: float) -> int:
    """Fuzz a target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["edgeproxy", "fuzz.targets"]):
        module = importlib.import_module(f"fuzz.targets.{target}")
    module.check(b"")
    found = _HERE / "found"
    found.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={_LONGEST_INPUT}",
        f"-timeout={_SLOWEST}",
        f"-artifact_prefix={found}/{target}-",
        "-use_value_profile=1",
    ]
    # The first folder is the one that grows: the corpus is for what somebody has chosen.
    corpora = [tempfile.mkdtemp(), str(_HERE / "corpus" / target)]
    atheris.Setup([sys.argv[0], *options, *corpora], module.check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
