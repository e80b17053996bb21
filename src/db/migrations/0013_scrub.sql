-- Checking what is stored against what is known of it. The protocol stands in registry/scrub.ts.

-- Since when the object of a blob is known to be missing or wrong; null: it is not. Such content counts as not held: it
-- is not served, and who pushes it stores it anew, which points the row at the new object.
alter table blobs add column damaged_at timestamptz;
create index blobs_damaged on blobs (digest) where damaged_at is not null;

-- A pass over everything. It is taken up by whoever comes next where its process died: `holder` is a process that works
-- at it until leased_until; what is written for another holder finds no row. position: everything up to it is done.
create table scrub_runs (
  id bigint generated always as identity primary key,
  mode text not null check (mode in ('full', 'quick')),
  phase text not null default 'blobs' check (phase in ('blobs', 'objects', 'manifests')),
  position text collate "C" not null default '',
  blobs bigint not null default 0,
  bytes bigint not null default 0,
  objects bigint not null default 0,
  manifests bigint not null default 0,
  found bigint not null default 0,
  repaired bigint not null default 0,
  holder uuid not null,
  leased_until timestamptz not null,
  started_at timestamptz not null default now(),
  finished_at timestamptz
);
-- One of a kind is under way; the others are history.
create unique index scrub_runs_open on scrub_runs (mode) where finished_at is null;
create index scrub_runs_finished on scrub_runs (finished_at desc) where finished_at is not null;

-- What was found to be wrong. subject: what is wrong, in one text: of one thing there is one open finding.
-- copy_key, quarantine_key: objects that a repair makes, one to be used and one to be kept aside. They are named here
-- before they are there, so no object is ever without a name.
create table scrub_findings (
  id bigint generated always as identity primary key,
  kind text not null check (kind in ('object-missing', 'wrong-bytes', 'unreadable', 'wrong-size', 'odd-key',
    'orphan-object', 'orphan-chunk', 'odd-object', 'wrong-manifest')),
  subject text collate "C" not null,
  digest text collate "C",
  storage_key text collate "C",
  repository_id bigint references repositories (id),
  size bigint,
  expected text,
  actual text,
  copy_key text collate "C",
  quarantine_key text collate "C",
  first_seen timestamptz not null default now(),
  last_seen timestamptz not null default now(),
  resolved_at timestamptz,
  repaired text
);
create unique index scrub_findings_open on scrub_findings (subject) where resolved_at is null;
create index scrub_findings_digest on scrub_findings (digest) where resolved_at is null;
create index scrub_findings_copy on scrub_findings (copy_key) where copy_key is not null;
create index scrub_findings_quarantine on scrub_findings (quarantine_key) where quarantine_key is not null;

-- A row that is pointed at another object has nothing wrong any more, and what it pointed at before is not needed.
create function settle_blob() returns trigger language plpgsql as $$
begin
  insert into blob_deletions (storage_key) values (old.storage_key) on conflict do nothing;
  update scrub_findings set resolved_at = now(), repaired = 'stored again'
  where digest = new.digest and repository_id is null and resolved_at is null
    and kind in ('object-missing', 'wrong-bytes', 'unreadable', 'odd-key');
  return null;
end $$;
create trigger settle_blob after update of storage_key on blobs
  for each row when (old.storage_key <> new.storage_key) execute function settle_blob();

-- While a backup is made, or the bucket is copied after one, no object is deleted: the dump may name it.
create table backup_holds (
  id uuid primary key,
  until timestamptz not null
);
