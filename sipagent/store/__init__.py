"""The record: models, migrations, one writer fed by events, and the read side. The only importer of SQLAlchemy."""
