-- Collecting what nothing refers to. The protocol stands in registry/collect.ts.

-- An object that its store would not delete is tried again later, and does not stand in the way of the others.
alter table blob_deletions
  add column attempts integer not null default 0,
  add column retry_at timestamptz not null default now(),
  add column error text;
create index blob_deletions_due on blob_deletions (retry_at, storage_key);

-- What an import takes for granted because the registry holds it: while such a row is there, the content stays.
create index import_blobs_held on import_blobs (digest) where storage_key is null and payload is null;

-- Deleted rows leave dead entries at the head of these work lists, which every look at them passes: they are cleared
-- away when there are some thousands of them, not when they are a fifth of the table.
alter table blobs set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
alter table repository_blobs set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
alter table blob_deletions set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
