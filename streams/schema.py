"""The wire contract for other languages: JSON Schema and AsyncAPI, generated from the models.

What `streams.events.decode` accepts, the schema accepts. The other way it holds but for what a
schema can't say: an entry's size and nesting, a day that its month lacks, numbers beyond a double,
integers beyond 64 bits in `meta`.
"""

import msgspec
from msgspec import Struct

from streams.events import (
    MAX_ENTRY_BYTES,
    Alert,
    Close,
    Control,
    Dead,
    Decision,
    ModelChange,
    Outcome,
    Signal,
    SnapshotNotice,
)
from streams.keys import Keys
from streams.values import value_schema

CHANNELS: dict[str, tuple[type[Struct], ...]] = {
    "events": (Signal, Close, Control),
    "decisions": (Decision,),
    "outcomes": (Outcome,),
    "alerts": (Alert,),
    "models": (ModelChange,),
    "snapshots": (SnapshotNotice,),
    "dead": (Dead,),
}
"""Each stream of `Keys` and what stands in it."""

_MODELS = tuple(model for models in CHANNELS.values() for model in models)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OPERATIONS = {
    "botPublishes": ("send", "events", (Signal, Close), "A bot publishes signals and closes."),
    "operatorCommands": ("send", "events", (Control,), "An operator gives a signed command."),
    "workerReads": ("receive", "events", (Signal, Close, Control), "The worker reads in order."),
    "workerDecides": ("send", "decisions", (Decision,), "The worker answers each signal once."),
    "workerJoins": ("send", "outcomes", (Outcome,), "The worker tells what came of a decision."),
    "workerWarns": ("send", "alerts", (Alert,), "The worker tells what a person should know."),
    "workerRegisters": ("send", "models", (ModelChange,), "The worker has another model."),
    "workerNotes": ("send", "snapshots", (SnapshotNotice,), "The worker took a snapshot."),
    "workerBuries": ("send", "dead", (Dead,), "The worker sets aside what it could not use."),
    "consumerReads": ("receive", "decisions", (Decision,), "Whoever acts on decisions reads them."),
    "consumerJoins": ("receive", "outcomes", (Outcome,), "Whoever keeps the books reads these."),
    "consumerWatches": ("receive", "alerts", (Alert,), "Whoever watches reads these."),
    "consumerAudits": ("receive", "models", (ModelChange,), "Whoever asks which model decided."),
    "botSeesRefusals": ("receive", "dead", (Dead,), "A bot learns why an event was refused."),
}


def json_schema() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of every event; each by its name under ``$defs``."""
    return {
        "$schema": _DIALECT,
        "title": "closeloop events",
        "description": f"One event: UTF-8 JSON of at most {MAX_ENTRY_BYTES} bytes.",
        "oneOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in _MODELS],
        "$defs": _definitions("#/$defs/{name}"),
    }


def asyncapi() -> dict[str, object]:
    """The AsyncAPI 3.0 document: which stream holds what, and who writes and reads it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "closeloop",
            "version": "1",
            "description": "Signals in, decisions out, learning on every close. Each entry of a "
            "stream has one field, `e`, which holds one event as UTF-8 JSON.",
        },
        "defaultContentType": "application/json",
        "servers": {"redis": {"host": "localhost:6379", "protocol": "redis"}},
        "channels": {name: _channel(name, models) for name, models in CHANNELS.items()},
        "operations": {
            name: {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": summary,
                "messages": [
                    {"$ref": f"#/channels/{channel}/messages/{model.__name__}"} for model in models
                ],
                "bindings": {"redis": {}},
                "x-redis": {"command": "XADD" if action == "send" else "XREAD", "field": "e"},
            }
            for name, (action, channel, models, summary) in _OPERATIONS.items()
        },
        "components": {
            "messages": {
                model.__name__: {
                    "name": model.__struct_config__.tag,
                    "summary": model.__doc__,
                    "contentType": "application/json",
                    "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
                }
                for model in _MODELS
            },
            "schemas": _definitions("#/components/schemas/{name}"),
        },
    }


def _channel(name: str, models: tuple[type[Struct], ...]) -> dict[str, object]:
    key: str = getattr(Keys(0), name)
    purpose: str = getattr(Keys, name).__doc__
    return {
        "address": key.replace("{0}", "{shard}"),
        "description": purpose,
        "messages": {
            model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in models
        },
        "parameters": {
            "shard": {
                # The key has braces of its own, a hash tag; in an address they mean a parameter.
                "description": "The shard's number in braces: `{0}` stands for itself in the key.",
                "default": "{0}",
                "examples": ["{0}", "{1}"],
            }
        },
        "bindings": {"redis": {}},
        "x-redis": {"type": "stream", "field": "e", "key": key},
    }


def _definitions(ref_template: str) -> dict[str, dict[str, object]]:
    _, definitions = msgspec.json.schema_components(
        _MODELS, schema_hook=value_schema, ref_template=ref_template
    )
    return definitions
