"""What was invalidated: selectors, the journal, the rules that it adds up to, the service."""
