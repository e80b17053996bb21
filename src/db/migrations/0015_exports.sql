-- Bundle files that a job makes and the store keeps for a while. id: that of the planned file, which names its bytes, so
-- the same request in the same state is the same export. `file`: what is told of it, as JSON text.
create table exports (
  id text collate "C" primary key check (id ~ '^[0-9a-f]{64}$'),
  principal text not null,
  state text not null default 'waiting' check (state in ('waiting', 'running', 'ready', 'failed')),
  size bigint not null check (size > 0),
  file json not null,
  sha256 text collate "C" check (sha256 ~ '^[0-9a-f]{64}$'),
  error text,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  expires_at timestamptz not null,
  check ((state = 'ready') = (sha256 is not null))
);
create index exports_expiry on exports (expires_at);
create index exports_newest on exports (created_at desc, id desc);

-- An export is stored part by part: a worker that dies loses no more than one. The row is there before the object, so
-- that no object is ever without a row. `stored`: the object is whole.
create table export_parts (
  export_id text collate "C" not null references exports (id) on delete cascade,
  number integer not null check (number >= 0),
  size bigint not null check (size > 0),
  storage_key text collate "C" not null unique,
  stored boolean not null default false,
  primary key (export_id, number)
);

-- An import that is `publishing` is whole, verified, and by somebody who may publish all of it: any process may finish it
-- from its rows. `publishing`: how it is to be published, and for whom.
alter table imports drop constraint imports_state_check;
alter table imports add constraint imports_state_check
  check (state in ('receiving', 'verifying', 'publishing', 'published', 'failed'));
alter table imports add column publishing json;
alter table imports add check (state <> 'publishing' or publishing is not null);

-- What a process is fetching from an upstream at this moment: others wait for it, for as long as it says that it lives.
-- Unlogged: after a crash of the database nobody fetches any more.
create unlogged table upstream_fetches (
  thing text collate "C" primary key,
  holder uuid not null,
  leased_until timestamptz not null
);
