"""What a test may wish for: the values that the control's client sends and its server understands."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ANY = "*"

FaultKind = Literal[
    "drop_before",
    "drop_after",
    "delay_after",
    "error_before",
    "error_after",
    "bad_gateway",
    "unavailable",
    "rate_limited",
    "conflict",
    "hold_before",
    "hold_after",
]


class Wish(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Wish):
    """What a scripted card does when it is charged.

    A decline's `code` follows from its `decline_code` when it is left out, as does `outcome_reason`.
    """

    do: Literal["succeed", "decline", "processing", "authenticate"]
    decline_code: str | None = None
    code: str | None = None
    message: str = "Your card was declined."
    advice_code: Literal["confirm_card_data", "do_not_try_again", "try_again_later"] | None = None
    network_advice_code: str | None = None
    network_decline_code: str | None = None
    outcome_reason: str | None = None


class Fault(Wish):
    """What goes wrong, and on which calls.

    Of the calls that match `method` and `path` (a template such as `/v1/payment_intents/{id}/confirm`) since it
    was added, it meets either `times` calls from the `nth` on (0: all of them), or each one with `probability`,
    drawn by `seed` in the order of arrival, up to `times` (0: no limit). The first fault that meets a call wins.

    kind: `drop_before`, `drop_after` (the connection is reset before the call, or after its effect);
    `delay_after` (answered `seconds` later); `error_before`, `error_after` (500; `is_kept` tells whether it is
    kept under the idempotency key, as Stripe keeps what began to execute); `bad_gateway` (502 in HTML),
    `unavailable` (503), `rate_limited` (429, with `Stripe-Should-Retry` if `should_retry` is set), `conflict`
    (409, key in use): nothing was executed; `hold_before`, `hold_after`: the call waits, before its effect or
    with its answer, until it is released, `seconds` at most.
    """

    kind: FaultKind
    method: Literal["*", "GET", "POST", "DELETE"] = "*"
    path: str = ANY
    nth: int = Field(default=1, ge=1)
    times: int = Field(default=1, ge=0)
    probability: float | None = Field(default=None, ge=0, le=1)
    seed: int = 0
    seconds: float = Field(default=15, ge=0, le=600)
    should_retry: bool | None = None
    is_kept: bool = True


class Delivery(Wish):
    """How webhooks travel.

    `when`: `before` the answer to the request that caused them (which waits for the first attempts), `after`
    it, or `never`. Each is sent `copies` times, `delay_seconds` later. With `shuffle_window` n, every n deliveries
    are gathered, shuffled by `seed` and sent one after another; what is left waits until it is asked for.
    `lost_share` of them, drawn by `seed`, is never attempted. `signature`: `right`, `wrong_secret`, or with a
    timestamp that is `stale` (ten minutes old) or in the `future`. An answer other than 2xx, or none within
    `timeout_seconds`, is followed by another attempt, `attempts_max` in all, after a back-off of
    `backoff_seconds` that doubles up to 2 s.
    """

    when: Literal["before", "after", "never"] = "after"
    copies: int = Field(default=1, ge=1, le=10)
    delay_seconds: float = Field(default=0, ge=0, le=600)
    shuffle_window: int = Field(default=1, ge=1, le=10_000)
    lost_share: float = Field(default=0, ge=0, le=1)
    seed: int = 0
    signature: Literal["right", "stale", "future", "wrong_secret"] = "right"
    attempts_max: int = Field(default=5, ge=1, le=100)
    backoff_seconds: float = Field(default=0.1, ge=0, le=60)
    timeout_seconds: float = Field(default=5, gt=0, le=60)

    @model_validator(mode="after")
    def _refuse_contradiction(self) -> "Delivery":
        if self.when == "before" and self.shuffle_window > 1:
            raise ValueError("deliveries that wait for others can't come before an answer: shuffle those 'after' it")
        return self


class SetClock(Wish):
    now: int


class AdvanceClock(Wish):
    seconds: int


class SetOffset(Wish):
    """How far the double's clock is ahead of the machine's."""

    seconds: int


class ScriptCard(Wish):
    card: str
    steps: list[Step]
    then: Step | None = None


class ReleaseHeld(Wish):
    fault_id: int | None = None


class RefuseConnections(Wish):
    seconds: float = Field(gt=0, le=60)


class SetWebhooks(Wish):
    """Where to: in place of the endpoint that an earlier wish set, if any."""

    url: str
    secret: str
    enabled_events: list[str] = ["*"]
    delivery: Delivery = Delivery()


class OpenDispute(Wish):
    """Of a charge, or of a PaymentIntent's latest one."""

    charge_or_intent: str
    amount_minor: int | None = None
    reason: str = "fraudulent"


class ReviewDispute(Wish):
    dispute: str


class CloseDispute(Wish):
    dispute: str
    outcome: Literal["won", "lost"]


class SettleProcessing(Wish):
    """Without a decline it succeeds."""

    intent: str
    decline: Step | None = None


class Authenticate(Wish):
    intent: str
    is_successful: bool = True


class UpdateCard(Wish):
    payment_method: str
    exp_month: int = Field(ge=1, le=12)
    exp_year: int


class Nothing(Wish):
    pass
