"""JSON schemas, as far as pydantic-core checks them: types, fields, items, values, limits, $defs, anyOf, allOf. Another
keyword is refused, so that nothing is judged by half of a schema."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, ValidationError

from core.errors import JudgeError
from core.judges.texts import quoted

Core = dict[str, Any]  # a schema of pydantic-core
_NUMBERS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
# JSON's types: pydantic-core's name, and its names of their limits
_TYPES: dict[str, tuple[str, dict[str, str]]] = {
    "null": ("none", {}),
    "boolean": ("bool", {}),
    "integer": ("int", _NUMBERS),
    "number": ("float", _NUMBERS),
    "string": ("str", {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}),
    "array": ("list", {"min_length": "minItems", "max_length": "maxItems"}),
    "object": ("typed-dict", {}),
}
_ROUNDED = {"ge": math.ceil, "le": math.floor, "gt": math.floor, "lt": math.ceil}  # limits of whole numbers
_KEYWORDS = {
    "$ref", "$defs", "definitions", "type", "enum", "const", "anyOf", "allOf", "properties", "required",
    "additionalProperties", "items", *(name for _, limits in _TYPES.values() for name in limits.values()),
}  # fmt: skip
_ANNOTATIONS = {
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "format", "deprecated", "readOnly",
    "writeOnly",
}  # fmt: skip


def violation(schema: str, value: object) -> str | None:
    """Return where and how a JSON value differs from a schema first; None if it is valid. Raises JudgeError for text
    that is no JSON schema, or one with a keyword that is not known here."""
    try:
        _validator(schema).validate_python(_loads(json.dumps(value)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return ": ".join([".".join(map(str, first["loc"])) or "JSON", first["msg"]])
    return None


@lru_cache(maxsize=32)
def _validator(text: str) -> SchemaValidator:
    """Return the validator of a JSON schema's text. Raises JudgeError for one that is broken, or has an unknown
    keyword."""
    try:
        schema = _loads(text)
        definitions = [
            _core(one) | {"ref": f"#/{key}/{name}"}
            for key in ("$defs", "definitions")
            for name, one in (schema.get(key, {}) if isinstance(schema, dict) else {}).items()
        ]
        core: Any = {"type": "definitions", "schema": _core(schema), "definitions": definitions}
        return SchemaValidator(core)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, SchemaError) as error:
        reason = (str(error).splitlines() or ["?"])[0][:100]
        raise JudgeError("judges.schema_broken", schema=quoted(text), reason=reason) from None


def _loads(text: str) -> Any:
    """Return JSON in which 1.0 is 1, as in a schema."""
    return json.loads(
        text, parse_float=lambda digits: int(number) if (number := float(digits)).is_integer() else number
    )


def _core(schema: Any) -> Core:
    """Return a JSON schema as pydantic-core's: one step after the other for each of its demands. Raises ValueError for
    an unknown keyword."""
    if isinstance(schema, bool):
        return {"type": "any"} if schema else _one_of([])
    if unknown := schema.keys() - _KEYWORDS - _ANNOTATIONS:
        raise ValueError(f"keyword {min(unknown)}")
    types = schema.get("type", [*_TYPES])
    steps = [_union([_of_type(one, schema) for one in ([types] if isinstance(types, str) else types)])]
    steps += [{"type": "definition-ref", "schema_ref": schema["$ref"]}] if "$ref" in schema else []
    steps += [_one_of(schema["enum"])] if "enum" in schema else []
    steps += [_one_of([schema["const"]])] if "const" in schema else []
    steps += [_union([_core(one) for one in schema["anyOf"]])] if "anyOf" in schema else []
    return {"type": "chain", "steps": [*steps, *(_core(one) for one in schema.get("allOf", ()))]}


def _union(choices: list[Core]) -> Core:
    """Return pydantic-core's schema of a value that fits at least one of the choices."""
    return {"type": "union", "choices": choices}


def _one_of(values: list[object]) -> Core:
    """Return the validator of a value that is one of these, compared as JSON: true is not 1, as it is in Python."""
    texts = [json.dumps(value, sort_keys=True) for value in values]

    def refuse_other_values(value: object) -> object:
        """Return a value that is one of the allowed ones; raise ValueError for any other, which names them."""
        if json.dumps(value, sort_keys=True) not in texts:
            raise ValueError(f"should be {' or '.join(texts)}"[:200])
        return value

    return {"type": "function-plain", "function": {"type": "no-info", "function": refuse_other_values}}


def _of_type(kind: str, schema: Any) -> Core:
    """Return the validator of one type with the schema's demands on it. Raises KeyError for an unknown type."""
    name, limits = _TYPES[kind]
    core: Core = {"type": name, "strict": True} | {ours: schema[one] for ours, one in limits.items() if one in schema}
    if kind == "integer":
        core |= {name: round_(core[name]) for name, round_ in _ROUNDED.items() if name in core}
    elif kind == "number":
        core = _union([_of_type("integer", schema), core])
    elif kind == "array":
        core["items_schema"] = _core(schema.get("items", True))
    elif kind == "object":
        required, others = schema.get("required", ()), schema.get("additionalProperties", True)
        properties = dict.fromkeys(required, others) | schema.get("properties", {})
        core["fields"] = {
            name: {"type": "typed-dict-field", "schema": _core(one), "required": name in required}
            for name, one in properties.items()
        }
        core |= {"extra_behavior": "forbid"} if others is False else {
            "extra_behavior": "allow", "extras_schema": _core(others)
        }  # fmt: skip
    return core
