"""The origins of a site as one: who is asked next, who is passed over, what is asked again.

One small thing a module; `edgeproxy.proxy.pool` puts them together. What they learn from requests,
each worker learns for itself; checks are made once a node, and their outcome is shared.
"""
