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

-- Events up to this position may have been forgotten: whoever wants to go on from before it has missed some.
create table event_horizon (
  only_one boolean primary key default true check (only_one),
  position bigint not null
);
insert into event_horizon (position) values (0);

-- Where events are sent to. secret: sealed (registry/sealed.ts); it signs, and is told when it is made and never again.
-- types, packs: patterns with `*`. type_patterns, pack_patterns: the same as LIKE has them.
create table webhooks (
  id uuid primary key default gen_random_uuid(),
  name text collate "C" not null unique,
  url text not null,
  description text,
  types text[] not null check (cardinality(types) > 0),
  packs text[] not null check (cardinality(packs) > 0),
  type_patterns text[] collate "C" not null,
  pack_patterns text[] collate "C" not null,
  secret bytea not null,
  options jsonb not null,
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- What waits to be sent to one webhook about one pack; of what is of no pack, about one type. One worker at a time has a
-- lane: it sends its deliveries one after the other. The protocol stands above db/lanes.ts.
create table webhook_lanes (
  webhook_id uuid not null references webhooks (id) on delete cascade,
  lane text collate "C" not null,
  pending int not null check (pending >= 0),
  due_at timestamptz not null default now(),
  claim bigint not null default 0,
  primary key (webhook_id, lane)
);
create index webhook_lanes_due on webhook_lanes (webhook_id, due_at);

-- An event on its way to a webhook, and afterwards the log of it. `dead`: its tries are spent.
create table webhook_deliveries (
  id uuid primary key default gen_random_uuid(),
  webhook_id uuid not null references webhooks (id) on delete cascade,
  position bigint not null references events (position) on delete cascade,
  lane text collate "C" not null,
  state text not null default 'waiting' check (state in ('waiting', 'delivered', 'dead')),
  tries int not null default 0,
  queued_at timestamptz not null default now(),
  next_at timestamptz,
  ended_at timestamptz,
  unique (webhook_id, position)
);
create index webhook_deliveries_waiting on webhook_deliveries (webhook_id, lane, position) where state = 'waiting';
create index webhook_deliveries_dead on webhook_deliveries (webhook_id, position) where state = 'dead';
create index webhook_deliveries_event on webhook_deliveries (position);
create index webhook_deliveries_ended on webhook_deliveries (ended_at) where ended_at is not null;

-- Each attempt: when it began, what came of it in a status or a word, and how long it took. No bodies of answers.
create table webhook_attempts (
  id bigint generated always as identity primary key,
  delivery_id uuid not null references webhook_deliveries (id) on delete cascade,
  at timestamptz not null,
  status int,
  error text,
  duration_ms int not null
);
create index webhook_attempts_delivery on webhook_attempts (delivery_id, id);
