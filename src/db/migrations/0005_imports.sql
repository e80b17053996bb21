-- Bundle files on their way in. Nothing here is visible to anybody who pulls: what an import has stored becomes content of
-- repositories when, and only when, the whole of it is published, in one transaction.

-- `attempt` goes up whenever a connection takes the import over; whoever writes for an older attempt finds no row.
-- `leased_until`: while the process that receives it lives, it moves this forward. `resume_at`: every entry of the tar
-- that ends at or before this byte is safe. index_json, envelope: as they came, so that a tail alone can be judged.
-- `report` is json, not jsonb: its text is answered as it is.
create table imports (
  id uuid primary key,
  state text not null default 'receiving' check (state in ('receiving', 'verifying', 'published', 'failed')),
  principal text not null,
  attempt integer not null default 1,
  received bigint not null default 0,
  total bigint,
  resume_at bigint not null default 0,
  blobs integer not null default 0,
  index_json bytea,
  envelope bytea,
  index_digest text collate "C",
  report json,
  error json,
  started_at timestamptz not null default now(),
  finished_at timestamptz,
  leased_until timestamptz not null,
  -- when what it has stored is thrown away, unless it was published
  expires_at timestamptz not null
);
create index imports_expiry on imports (expires_at);
create index imports_started on imports (started_at desc, id desc);

-- What an import has received. A manifest or a document is in `payload`; other content in the object `storage_key`; with
-- neither, the registry held it already. `stored`: the object is whole. The row is there before the object, so that no
-- object is ever without a row.
create table import_blobs (
  import_id uuid not null references imports (id),
  digest text collate "C" not null,
  size bigint not null,
  storage_key text collate "C" unique,
  payload bytea,
  stored boolean not null,
  primary key (import_id, digest)
);
create index import_blobs_digest on import_blobs (digest) where storage_key is not null;

-- Whether a manifest is here at all, in whatever repository: what an incremental bundle may leave out.
create index manifests_digest on manifests (digest);
