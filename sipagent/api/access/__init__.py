"""Who may use the API, and what they have changed."""
