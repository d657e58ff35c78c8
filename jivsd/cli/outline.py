"""What a workflow takes, on one line: `{"customer": string, "parts": [string], "express"?: boolean}`."""

import json
from typing import Any, cast


def outline(schema: dict[str, Any]) -> str:
    """A JSON Schema as msgspec writes them, in short. `?`: may be left out."""
    return _outline(schema, schema.get("$defs", {}))


def _outline(schema: dict[str, Any], known: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in known:  # inside of itself
            return name
        schema, known = known[name], {other: of for other, of in known.items() if other != name}
    if "anyOf" in schema:
        return " | ".join(_outline(one, known) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "properties" in schema:
        needed = set(schema.get("required", ()))
        fields = cast("dict[str, dict[str, Any]]", schema["properties"])
        each = (f'"{name}"{"" if name in needed else "?"}: {_outline(of, known)}' for name, of in fields.items())
        return f"{{{', '.join(each)}}}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"{{…: {_outline(cast('dict[str, Any]', values), known)}}}"
    if "prefixItems" in schema:
        return f"[{', '.join(_outline(one, known) for one in schema['prefixItems'])}]"
    if isinstance(items := schema.get("items"), dict):
        return f"[{_outline(cast('dict[str, Any]', items), known)}]"
    return str(schema.get("format") or schema.get("type") or "any JSON")
