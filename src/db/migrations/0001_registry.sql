-- The registry's facts. Names, tags and digests compare by bytes (collate "C"): the order the specification asks for,
-- and the cheapest one. Constraints carry the rules; the code that writes leans on them instead of looking first.

-- Rows of this table are never deleted, so an id, once seen, names one repository for good.
create table repositories (
  id bigint generated always as identity primary key,
  name text collate "C" not null unique,
  created_at timestamptz not null default now()
);

-- One row per content, whatever repositories link to it. storage_key names the live object (see blobs/keys.ts).
-- review_at is the collector's work list: when to look whether the content is still wanted. Null: nothing to do.
create table blobs (
  digest text collate "C" primary key,
  size bigint not null check (size >= 0),
  storage_key text collate "C" not null unique,
  created_at timestamptz not null default now(),
  verified_at timestamptz,
  review_at timestamptz
);
create index blobs_review on blobs (review_at) where review_at is not null;

-- A blob is readable in a repository through this link only. This is the authorisation fact.
create table repository_blobs (
  repository_id bigint not null references repositories (id),
  digest text collate "C" not null references blobs (digest),
  review_at timestamptz,
  primary key (repository_id, digest)
);
create index repository_blobs_digest on repository_blobs (digest);
create index repository_blobs_review on repository_blobs (review_at) where review_at is not null;

-- payload: the exact bytes that were pushed. The other columns are read from them once and never written back.
create table manifests (
  repository_id bigint not null references repositories (id),
  digest text collate "C" not null,
  media_type text collate "C" not null,
  artifact_type text collate "C",
  subject_digest text collate "C",
  annotations jsonb,
  size integer not null check (size between 1 and 4194304),
  payload bytea not null check (octet_length(payload) = size),
  pushed_at timestamptz not null default now(),
  primary key (repository_id, digest)
);
create index manifests_subject on manifests (repository_id, subject_digest, digest) where subject_digest is not null;
-- The payload is compressed or moved out of line only where it is large: small manifests stay in the row's own page.
alter table manifests alter column payload set storage main;

-- The foreign key to the link is the garbage-collection protocol: inserting an edge takes a key-share lock on the
-- link, and the collector's delete of a link takes the row lock. One of them waits for the other; then either the push
-- fails (and the client pushes the blob again), or the collector sees the edge.
create table manifest_blobs (
  repository_id bigint not null,
  manifest_digest text collate "C" not null,
  blob_digest text collate "C" not null,
  primary key (repository_id, manifest_digest, blob_digest),
  foreign key (repository_id, manifest_digest) references manifests (repository_id, digest) on delete cascade,
  constraint manifest_blobs_link foreign key (repository_id, blob_digest)
    references repository_blobs (repository_id, digest)
);
create index manifest_blobs_blob on manifest_blobs (repository_id, blob_digest);

-- Index to member. No foreign key to the member: an index may name manifests that are not here (sparse).
create table manifest_children (
  repository_id bigint not null,
  manifest_digest text collate "C" not null,
  child_digest text collate "C" not null,
  primary key (repository_id, manifest_digest, child_digest),
  foreign key (repository_id, manifest_digest) references manifests (repository_id, digest) on delete cascade
);
create index manifest_children_child on manifest_children (repository_id, child_digest);

create table tags (
  repository_id bigint not null,
  name text collate "C" not null,
  manifest_digest text collate "C" not null,
  updated_at timestamptz not null default now(),
  primary key (repository_id, name),
  foreign key (repository_id, manifest_digest) references manifests (repository_id, digest) on delete cascade
);
create index tags_manifest on tags (repository_id, manifest_digest);

-- Every move of every tag; manifest_digest is null where the tag was deleted.
create table tag_history (
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories (id),
  name text collate "C" not null,
  manifest_digest text collate "C",
  moved_at timestamptz not null default now()
);
create index tag_history_tag on tag_history (repository_id, name, id);

create function record_tag_move() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    insert into tag_history (repository_id, name) values (old.repository_id, old.name);
  elsif tg_op = 'INSERT' or old.manifest_digest <> new.manifest_digest then
    insert into tag_history (repository_id, name, manifest_digest)
    values (new.repository_id, new.name, new.manifest_digest);
  end if;
  return null;
end $$;
create trigger record_tag_move after insert or update or delete on tags
  for each row execute function record_tag_move();

-- Keys that all processes share and nobody else has.
create table secrets (
  name text primary key,
  secret bytea not null check (octet_length(secret) = 32)
);
insert into secrets (name, secret)
values ('uploads', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- An upload that has a chunk, or is over. One without a chunk has no row: its id is signed (registry/session-ids.ts).
-- It names its repository by name: a session alone brings no repository into being.
-- chunks: the staged objects in order, [{"key": …, "size": …}]. digest_so_far: of all bytes up to "offset", kept while
-- there is one chunk. A closed session keeps its digest for a while, so that a repeated closing PUT gets its answer.
create table uploads (
  id uuid primary key,
  repository text collate "C" not null,
  algorithm text not null default 'sha256' check (algorithm in ('sha256', 'sha512')),
  "offset" bigint not null default 0 check ("offset" >= 0),
  digest_so_far text collate "C",
  chunks jsonb not null default '[]',
  state text not null default 'open' check (state in ('open', 'closed', 'cancelled')),
  digest text collate "C" check ((state = 'closed') = (digest is not null)),
  started_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index uploads_expiry on uploads (expires_at);

-- Objects that no row names any more, to be deleted from the store outside any transaction, as often as it takes.
create table blob_deletions (
  storage_key text collate "C" primary key,
  queued_at timestamptz not null default now()
);
