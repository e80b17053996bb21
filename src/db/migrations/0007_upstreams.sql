-- Namespaces that are filled from another registry: what is not in a repository below `prefix` is asked of it.
-- credentials: sealed, as those of mirrors.
create table upstreams (
  prefix text collate "C" primary key,
  url text not null,
  -- what stands before the rest of the name there; empty: nothing
  remote_prefix text collate "C" not null,
  credentials bytea,
  tag_ttl_seconds integer not null check (tag_ttl_seconds > 0),
  options jsonb not null,
  updated_at timestamptz not null default now()
);

-- A tag from an upstream is good until then; afterwards it is as if it were not there, which is when the upstream is
-- asked. So a read of any other tag costs nothing more than before. Null: it is ours.
alter table tags add column recheck_at timestamptz;

-- A manifest from an upstream is there before its blobs are: those that are missing stand here, and become edges of it
-- (manifest_blobs) as they arrive.
create table awaited_blobs (
  repository_id bigint not null,
  manifest_digest text collate "C" not null,
  blob_digest text collate "C" not null,
  primary key (repository_id, blob_digest, manifest_digest),
  foreign key (repository_id, manifest_digest) references manifests (repository_id, digest) on delete cascade
);
create index awaited_blobs_manifest on awaited_blobs (repository_id, manifest_digest);
