"""The orchestrator that comes with the product: ingest, tasks, answers, and the people who give them."""
