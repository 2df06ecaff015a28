"""What the HTTP standards say, as pure functions and frozen values: no I/O, no clock, no framework.

A module bears the name of what it answers for:

    fields          header fields as received, lists, tokens, quoted strings     RFC 9110 5
    structured      structured fields                                            RFC 9651
    dates           HTTP-date                                                    RFC 9110 5.6.7
    cache_control   Cache-Control, targeted fields, Surrogate-Control            RFC 9111 5.2, 9213
    age             initial and current age                                      RFC 9111 4.2.3, 5.1
    freshness       freshness lifetime, when stale responses may be served       RFC 9111 4.2, 5861
    storing         what may be stored, and which of its fields                  RFC 9111 3
    vary            which stored response a request selects                      RFC 9111 4.1
    conditional     validators, preconditions, 304, freshening                   RFC 9110 8.8, 13
    ranges          byte ranges and If-Range                                     RFC 9110 14
    cache_status    the Cache-Status field                                       RFC 9211
    tags            the fields by which origins tag responses
    key             the cache key                                                RFC 9111 2
    cache_buster    the `cb:` segment of a target
    forwarding      hop-by-hop fields, Via, Forwarded                            RFC 9110 7.6, 7239
    target          the request target and Host                                  RFC 9112 3.2, 3.3
    errors          what these modules raise
"""
