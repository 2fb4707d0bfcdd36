"""What is trained: the Task object, its loader, and the built-in tasks."""
