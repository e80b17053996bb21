-- What happened, for whoever wants to be told. The protocol stands above db/events.ts.

-- Written in the transaction of what happened. Under the lock of its pack, an event of a later transaction has the higher
-- id; across packs, ids say nothing about who commits first. json, not jsonb: the text is sent as it is.
create table event_outbox (
  id bigint generated always as identity primary key,
  event_id uuid not null default gen_random_uuid(),
  at timestamptz not null default clock_timestamp(),
  type text collate "C" not null,
  pack_id text collate "C",
  subject text not null,
  data json not null
);

-- Events with their place in the one order that every reader sees. Places come into sight in their order, one relay at a
-- time, so whoever has read up to a place has missed nothing before it. event_id names the event for ever.
create table events (
  position bigint generated always as identity primary key,
  event_id uuid not null unique,
  at timestamptz not null,
  type text collate "C" not null,
  pack_id text collate "C",
  subject text not null,
  data json not null
);
create index events_at on events (at);
