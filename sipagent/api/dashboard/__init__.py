"""The dashboard: one page in the browser that uses the REST API like any other client."""
