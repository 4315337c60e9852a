"""Transactional outbox and inbox in the user's own database: `.sqlalchemy` and `.django`."""
