"""Call-detail records and reports."""
