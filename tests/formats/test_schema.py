"""The published schema of the pipeline document takes every valid sample, and refuses the invalid ones as far as a schema can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/formats/pipeline-spec.schema.json").read_text())
SAMPLES = ROOT / "launcher/spec/tests"

BEYOND = {
    "cycle",
    "duplicate-id",
    "function-twice",
    "gap-in-ids",
    "long-cycle",
    "program-with-inputs",
    "self-dependency",
    "unknown-after",
    "unknown-function",
    "unknown-group",
    "unknown-input",
    "unknown-kept",
}
"""What a schema cannot say: how parts of a document go together. The reader checks it."""


def samples(folder: str) -> list[Any]:
    files = sorted((SAMPLES / folder).glob("*.json"))
    return [pytest.param(file, id=file.stem) for file in files]


def check(sample: Path) -> bool:
    """Whether the schema takes a sample; one that is no JSON is refused before any schema."""
    try:
        document = json.loads(sample.read_text())
    except ValueError:
        return False
    return Draft202012Validator(SCHEMA).is_valid(document)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("sample", samples("valid"))
def test_a_valid_sample_is_taken(sample: Path) -> None:
    assert check(sample)


@pytest.mark.parametrize("sample", samples("invalid"))
def test_an_invalid_sample_is_refused_unless_a_schema_cannot_say_why(sample: Path) -> None:
    assert check(sample) == (sample.stem in BEYOND)
