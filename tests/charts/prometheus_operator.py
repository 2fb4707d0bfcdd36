"""What Prometheus's operator (0.84) takes of the fields that the chart may use: JSON Schemas, without unknown keys.

Written from the operator's API reference, so that a misspelt field is found here: the API server drops it in silence.
"""

from __future__ import annotations

from typing import Any

DURATION = {"type": "string", "pattern": r"^(0|(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def exactly(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these properties only."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


def custom(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """An object of the operator's group."""
    return exactly(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "monitoring.coreos.com/v1"},
        kind={"const": kind},
        metadata=exactly(("name", "namespace"), name={"type": "string"}, namespace={"type": "string"}, labels=TEXTS),
        spec=spec,
    )


SCHEMAS = {
    "ServiceMonitor": custom(
        "ServiceMonitor",
        exactly(
            ("endpoints", "selector"),
            jobLabel={"type": "string"},
            namespaceSelector=exactly(any={"type": "boolean"}, matchNames=listed({"type": "string"})),
            selector=exactly(("matchLabels",), matchLabels=TEXTS),
            endpoints=listed(
                exactly(
                    ("port",),
                    port={"type": "string"},
                    path={"type": "string"},
                    scheme={"enum": ["http", "https"]},
                    interval=DURATION,
                    scrapeTimeout=DURATION,
                )
            ),
        ),
    ),
    "PrometheusRule": custom(
        "PrometheusRule",
        exactly(
            ("groups",),
            groups=listed(
                exactly(
                    ("name", "rules"),
                    name={"type": "string", "minLength": 1},
                    interval=DURATION,
                    rules=listed(
                        exactly(
                            ("alert", "expr"),
                            alert={"type": "string", "minLength": 1},
                            expr={"type": "string", "minLength": 1},
                            labels=TEXTS,
                            annotations=TEXTS,
                            **{"for": DURATION},
                        )
                    ),
                )
            ),
        ),
    ),
}
