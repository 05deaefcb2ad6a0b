"""The migrations of the orchestrator's database, run by Alembic."""
