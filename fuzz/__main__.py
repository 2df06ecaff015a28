"""`python -m fuzz --seconds 60`: all targets share the time. `--target NAME` is one of them alone.

Each begins with its corpus, which must hold, and goes on with what it makes of that. What is found
is written to fuzz/found/NAME-..., printed, and tried again: the exit status is 1 where that fails
again. Put it into fuzz/corpus/NAME/ once it is mended, where the tests run it for ever.
"""

import argparse
import base64
import importlib
import os
import pkgutil
import signal
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
_AGAIN = 60.0
"""Seconds that trying inputs again may take."""
_FOUND = _HERE / "found"


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    arguments.add_argument("--target", choices=TARGETS, help="this one alone")
    arguments.add_argument(
        "--try", dest="inputs", nargs="+", type=Path, help="nothing but these files, for --target"
    )
    arguments.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.inputs and not given.target:
        arguments.error("--try goes with --target")
    if given.inputs:
        return _try(given.target, given.inputs)
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
    """Try a target's corpus, then fuzz it, each in a process of its own; its name if there is
    something that fails, and fails again."""
    known = sorted((_HERE / "corpus" / target).iterdir())
    tried = _process(target, "--try", *map(str, known))
    if tried.returncode:
        print(f"{target}: its corpus does not hold\n{tried.stdout}{tried.stderr}", flush=True)
        return target
    before = _found(target)
    ended = _process(target, "--inside", "--seconds", str(seconds))
    told = ended.stderr.strip().splitlines()
    runs = [line for line in told if line.startswith("Done")]
    print(f"{target}: {runs[-1] if runs else f'ended with {ended.returncode}'}", flush=True)
    if not ended.returncode and runs:
        return None
    noise = ("INFO", "WARNING", "#")
    print(ended.stdout + "\n".join(line for line in told if not line.startswith(noise)), flush=True)
    finds = sorted(_found(target) - before)
    for find in finds:
        print(f"{target}: {find} is {base64.b64encode(find.read_bytes()).decode()}", flush=True)
    if finds and not _process(target, "--try", *map(str, finds)).returncode:
        # Such as one that took too long on a machine that was busy.
        print(f"{target}: it did not happen again", flush=True)
        return None
    return target


def _found(target: str) -> set[Path]:
    return set(_FOUND.glob(f"{target}-*"))


def _process(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz", "--target", target, *arguments]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return subprocess.run(
            command,
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            errors="replace",
        )


def _try(target: str, inputs: list[Path]) -> int:
    """Try inputs in this process: the first that fails ends it."""
    check = importlib.import_module(f"fuzz.targets.{target}").check
    # One that never ends ends the process, too.
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    for path in inputs:
        print(path, flush=True)
        check(path.read_bytes())
    return 0


def _fuzz(target: str, seconds: float) -> int:
    """Fuzz a target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["edgeproxy", "fuzz.targets"]):
        module = importlib.import_module(f"fuzz.targets.{target}")
    module.check(b"")
    _FOUND.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={_LONGEST_INPUT}",
        f"-timeout={_SLOWEST}",
        f"-artifact_prefix={_FOUND}/{target}-",
        "-use_value_profile=1",
    ]
    # The first folder is the one that grows: the corpus is for what somebody has chosen.
    corpora = [tempfile.mkdtemp(), str(_HERE / "corpus" / target)]
    atheris.Setup([sys.argv[0], *options, *corpora], module.check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
