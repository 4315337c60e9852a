"""API contracts as documents: exported, compared, turned into Python and into AsyncAPI. Pure."""
