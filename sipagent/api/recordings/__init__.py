"""Recordings: started and stopped, listed, and downloaded by signed URLs."""
