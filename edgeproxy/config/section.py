"""What every table of the configuration is: frozen, with no key that it doesn't know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One table. Each field's description says what the setting does, in an operator's words."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )
