-- Collecting what nothing refers to. The protocol stands in registry/collect.ts.

-- An object that its store would not delete is tried again later, and does not stand in the way of the others.
alter table blob_deletions
  add column attempts integer not null default 0,
  add column retry_at timestamptz not null default now(),
  add column error text;
create index blob_deletions_due on blob_deletions (retry_at, storage_key);

-- What an import has no object of its own for: it may rely on the registry's, which stays while such a row is there.
create index import_blobs_held on import_blobs (digest) where storage_key is null;

-- With the repository in it, a link is found by two entries at most, whichever index the planner takes: content that
-- very many repositories have (an empty config) would else be read through for each of them.
create index repository_blobs_content on repository_blobs (digest, repository_id);
drop index repository_blobs_digest;

-- Deleted rows leave dead entries at the head of these work lists, which every look at them passes: they are cleared
-- away when there are some thousands of them, not when they are a fifth of the table.
alter table blobs set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
alter table repository_blobs set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
alter table blob_deletions set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
