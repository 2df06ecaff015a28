"""A page of a scripted origin that knows ranges."""

import re
from dataclasses import dataclass, field

from .origin import Answer, OriginRequest


@dataclass
class Ranged:
    """A page whose origin knows single ranges and If-Range, as RFC 9110 14 has it."""

    body: bytes
    fields: dict[str, str] = field(
        default_factory=lambda: {"Cache-Control": "max-age=600", "ETag": '"v1"'}
    )
    framing: str = "length"
    careless: bool = False
    """If-Range is not looked at."""

    def __call__(self, request: OriginRequest) -> Answer:
        asked, condition = request.field("range"), request.field("if-range")
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
        changed = condition not in (None, self.fields.get("ETag")) and not self.careless
        if match is None or changed or request.method != "GET":
            return Answer(200, self.fields, self.body, framing=self.framing)
        size = len(self.body)
        if match[1]:
            first, last = int(match[1]), min(int(match[2] or size), size - 1)
        else:
            first, last = max(0, size - int(match[2])), size - 1
        if first >= size:
            return Answer(416, {"Content-Range": f"bytes */{size}"}, b"no")
        fields = self.fields | {"Content-Range": f"bytes {first}-{last}/{size}"}
        return Answer(206, fields, self.body[first : last + 1], framing=self.framing)
