"""The admin port: the own API, health, and who may use them."""
