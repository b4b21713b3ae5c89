"""RTP: wire formats, G.711, jitter buffer, the engine process that keeps every call on time, its client in main."""
