"""What an agent knows from a folder of documents."""
