"""What training makes small, each with its reduction."""
