"""From measurements to a choice: which setting meets a goal, how sure that is, and a search for better ones."""
