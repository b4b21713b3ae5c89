"""What a call that is up can be made to hear, to say and to answer."""
