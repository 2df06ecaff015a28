"""Coverage-guided fuzzing of everything here that reads what others wrote."""
