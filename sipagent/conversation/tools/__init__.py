"""What a chat agent can do besides speaking: one file a kind of tool."""
