"""Local models: recognition, synthesis, sentence vectors and voice activity, in worker processes of their own."""
