"""What the fuzzers start from, and what they have found: it holds, and without atheris, too."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import fuzz.edge
from fuzz.__main__ import TARGETS

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"


@pytest.fixture(scope="module", autouse=True)
def _end_of_the_edge() -> Iterator[None]:
    yield
    fuzz.edge.end()


@pytest.mark.parametrize("target", TARGETS)
def test_no_known_input_breaks_a_promise(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    check = import_module(f"fuzz.targets.{target}").check
    for path in inputs:
        print(path.name)
        check(path.read_bytes())
