"""What the tenant has otherwise than the installation."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from api.access import Admin
from api.fields import Amount, Answer, Asking, Number
from api.routes import problems, router
from billing.affordability import BUFFER_MAX
from billing.tenant_settings import LOW_REQUESTS_MAX, TenantSettings
from config import clock
from services.desk import tenant_settings
from services.desk.access import Actor
from services.desk.tenant_settings import Chosen, as_text

routes = router("settings")

Least = Annotated[Amount, Field(ge=0)]
Thresholds = Annotated[
    str,
    StringConstraints(max_length=400, pattern=r"^[A-Z0-9=., ]*$"),
    Field(
        description="Numbers by currency; the one without a currency is for every other. Empty: no wallet is ever low.",
        examples=["5, CREDIT=1000"],
    ),
]
PerMinute = Annotated[
    int,
    Field(
        ge=1,
        le=LOW_REQUESTS_MAX,
        description="How often in a minute a customer whose wallet is low may ask for what costs something; "
        "null: as often as anybody.",
    ),
]


class SettingsQuestion(Asking):
    """What is to change; null: as the installation has it. What is left out stays."""

    free_tier_credits: Least | None = None
    affordability_buffer: Annotated[Amount, Field(ge=1, le=BUFFER_MAX)] | None = None
    low_balance: Thresholds | None = None
    audit_alert_percent: Least | None = None
    audit_alert_value_percent: Least | None = None
    low_requests_per_minute: PerMinute | None = None

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"affordability_buffer": "1.5", "low_balance": "5, CREDIT=1000"}]},
    }


class SettingsOut(Answer):
    """Settings; null: none of its own, or none at all."""

    free_tier_credits: Number | None = Field(description="Given each month, on plans that don't say how many.")
    affordability_buffer: Number | None = Field(description="What must be available of a cost, if the caller says not.")
    low_balance: str | None = Field(description="Below how much a wallet is low that has no threshold of its own.")
    audit_alert_percent: Number | None = Field(description="An alert tells when more percent of the rows differ.")
    audit_alert_value_percent: Number | None = Field(description="Or of the value of a wallet.")
    low_requests_per_minute: int | None = Field(description="Of a customer whose wallet is low.")

    @classmethod
    def of(cls, chosen: TenantSettings) -> "SettingsOut":
        said: dict[str, Any] = {name: getattr(chosen, name) for name in cls.model_fields}
        return cls(**said | {"low_balance": as_text(chosen.low_balance)})


class SettingsAnswer(Answer):
    """What the tenant has set, and what then holds: its own, else the installation's."""

    own: SettingsOut
    in_force: SettingsOut

    @classmethod
    def of(cls, chosen: Chosen) -> "SettingsAnswer":
        return cls(own=SettingsOut.of(chosen.own), in_force=SettingsOut.of(chosen.in_force))


@routes.get("/settings", operation_id="get_settings", summary="What is set for the tenant", responses=problems(404))
def get_settings(caller: Admin) -> SettingsAnswer:
    """What it has set itself, and what holds."""
    return SettingsAnswer.of(tenant_settings.of_tenant(caller.tenant_id))


@routes.patch(
    "/settings",
    operation_id="change_settings",
    summary="Set something for the tenant",
    responses=problems(404, has_body=True),
)
def change_settings(caller: Admin, question: SettingsQuestion) -> SettingsAnswer:
    """It holds from the next question, month, look and audit on."""
    changes = {name: getattr(question, name) for name in question.model_fields_set}
    by = Actor(caller.subject, caller.through)
    return SettingsAnswer.of(tenant_settings.change(caller.tenant_id, changes, by, clock.now()))
