"""Where the wines come from, what is wrong with them, and how they are divided."""
