"""The ceiling's tables and its five statements: constant text, one binary array per column. Frozen too."""

# Keys compare bytewise whatever the server's locale, which could otherwise halve the speed of their index.
TABLES = """
    DROP SCHEMA IF EXISTS ceiling CASCADE;
    CREATE SCHEMA ceiling;
    CREATE TABLE ceiling.wallets (
        id      bigint PRIMARY KEY,
        balance numeric(38, 12) NOT NULL,
        entries bigint NOT NULL
    );
    CREATE TABLE ceiling.usage_events (
        tenant_id   text COLLATE "C" NOT NULL,
        key         text COLLATE "C" NOT NULL,
        customer_id bigint NOT NULL,
        occurred_at timestamptz NOT NULL,
        items       jsonb NOT NULL,
        tokens      bigint NOT NULL,
        cost        numeric(38, 12) NOT NULL,
        PRIMARY KEY (tenant_id, key)
    );
    CREATE TABLE ceiling.ledger_entries (
        wallet_id     bigint NOT NULL,
        seq           bigint NOT NULL,
        amount        numeric(38, 12) NOT NULL,
        balance_after numeric(38, 12) NOT NULL,
        event_key     text COLLATE "C" NOT NULL,
        PRIMARY KEY (wallet_id, seq)
    );
    CREATE TABLE ceiling.periods (
        customer_id bigint NOT NULL,
        start_at    timestamptz NOT NULL,
        tokens      bigint NOT NULL,
        events      bigint NOT NULL,
        cost        numeric(38, 12) NOT NULL,
        PRIMARY KEY (customer_id, start_at)
    );
"""

INSERT_EVENTS = """
    INSERT INTO ceiling.usage_events (tenant_id, key, customer_id, occurred_at, items, tokens, cost)
    SELECT %b, key, customer_id, occurred_at, items, tokens, cost
      FROM unnest(%b::text[], %b::bigint[], %b::timestamptz[], %b::text[]::jsonb[], %b::bigint[], %b::numeric[])
           AS event (key, customer_id, occurred_at, items, tokens, cost)
     ORDER BY key
        ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING key
"""

# NO KEY UPDATE is what the later UPDATE takes too. The order keeps the two writers out of a deadlock.
LOCK_WALLETS = """
    SELECT id, balance, entries FROM ceiling.wallets
     WHERE id = ANY (%b::bigint[]) ORDER BY id FOR NO KEY UPDATE
"""

INSERT_ENTRIES = """
    INSERT INTO ceiling.ledger_entries (wallet_id, seq, amount, balance_after, event_key)
    SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::numeric[], %b::numeric[], %b::text[])
"""

UPDATE_WALLETS = """
    UPDATE ceiling.wallets AS wallet
       SET balance = wallet.balance - debit.cost, entries = wallet.entries + debit.events
      FROM unnest(%b::bigint[], %b::bigint[], %b::numeric[]) AS debit (id, events, cost)
     WHERE wallet.id = debit.id
"""

UPSERT_PERIODS = """
    INSERT INTO ceiling.periods AS period (customer_id, start_at, tokens, events, cost)
    SELECT id, %b, tokens, events, cost
      FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::numeric[]) AS usage (id, tokens, events, cost)
        ON CONFLICT (customer_id, start_at) DO UPDATE
       SET tokens = period.tokens + excluded.tokens,
           events = period.events + excluded.events,
           cost   = period.cost + excluded.cost
"""
