"""What every plane shares: ids, time, states, events and how a call ends. Standard library only."""
