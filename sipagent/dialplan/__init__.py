"""The dialplan: which steps a call takes, and the agents it meets. Files in, typed values out; nothing runs here."""
