"""JSON Schemas (draft 2020-12) of what each command prints with ``--json``, one file a command."""
