"""What is stored: the stored response, the memory tier of each worker, the shared tier."""
