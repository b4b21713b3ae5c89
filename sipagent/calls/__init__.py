"""One call: joins a leg (signalling), a port (media) and a conversation; and the registry of all calls."""
