"""What the REST API asks of a live node, by topic: `api.backend.Backend`."""
