"""The AI plane of one call: hearing, deciding whose turn it is, answering, speaking, and stopping when interrupted."""
