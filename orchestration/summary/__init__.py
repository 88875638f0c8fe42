"""What the last finished pipeline came to, in Markdown."""
