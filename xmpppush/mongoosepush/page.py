"""``GET /swaggerui``: the OpenAPI document as a page of plain HTML: no script, nothing from elsewhere."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem;
color: #1b1b1b }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem }
code, .method { font-family: ui-monospace, monospace } .method { font-weight: bold }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem .3rem 0;
vertical-align: top; border-bottom: 1px solid #e4e4e4 } th { font-weight: 600 }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #e6e6e6 } a { color: #8ab4f8 }
td, th { border-color: #333 } }
"""
# Nothing else may be loaded or run, whatever a description holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def render(document: Mapping[str, Any]) -> bytes:
    """The page."""
    return "".join(_page(document)).encode("utf-8")


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = escape(info["title"])
    yield f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>{title} {escape(info['version'])}</h1><p>{escape(info['description'])} "
    yield 'As OpenAPI: <a href="/swagger.json">/swagger.json</a></p>'
    for path, item in document["paths"].items():
        for method in ("get", "post"):
            if method in item:
                yield from _operation(method, path, item[method])
    for name, schema in document["components"]["schemas"].items():
        if name in ("V1", "V3", "Alert"):
            yield f'<h2 id="{name}">{name}</h2>'
            yield from _fields(schema.get("anyOf", [schema])[0])
    yield "</body></html>\n"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{escape(operation['summary'])}.</p>"
    if "requestBody" in operation:
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        yield f'<p>Body: <a href="#{name}">{name}</a></p>'
    yield "<table><tr><th>Status</th><th>When</th></tr>"
    for status, response in operation["responses"].items():
        yield f"<tr><td>{status}</td><td>{escape(response['description'])}</td></tr>"
    yield "</table>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "<table><tr><th>Field</th><th>Type</th><th></th></tr>"
    for name, rule in schema["properties"].items():
        needed = " (required)" if name in schema["required"] else ""
        yield f"<tr><td><code>{escape(name)}</code>{needed}</td><td>{_type(rule)}</td>"
        yield f"<td>{escape(rule.get('description', ''))}</td></tr>"
    yield "</table>"


def _type(rule: Mapping[str, Any]) -> str:
    if "$ref" in rule:
        name = rule["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in rule:
        return _type(rule["anyOf"][0])
    if "enum" in rule:
        return " | ".join(f"<code>{escape(str(each))}</code>" for each in rule["enum"])
    if rule["type"] == "array":
        return f"list of {_type(rule['items'])}"
    bounds = [f"up to {rule['maxLength']} characters"] if "maxLength" in rule else []
    if "pattern" in rule:
        bounds.append(f"<code>{escape(rule['pattern'])}</code>")
    return ", ".join([escape(rule["type"]), *bounds])
