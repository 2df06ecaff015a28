"""Measures edgeproxy beside other caching proxies on this machine: `python -m bench`.

servers.py and scenarios.py are tables: a row more in one of them is measured with all of the other.
"""
