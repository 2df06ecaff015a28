"""What strangers try, and what odd origins send, as tables: bytes, and what must come of them."""
