"""The JSON Schemas of the wire contract, a file for each event type and HTTP document; see `docs/wire.md`."""
