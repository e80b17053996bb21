-- Bundle files that were planned: what of them is made and not stored elsewhere. With it the very same file can be made
-- again on any replica, whatever is published in the meantime; the content comes from where it always is.
-- id: names the bytes of the file. manifests: which ones, of which packs, as JSON text: [["net-rules", ["sha256:…"]]].
create table bundle_files (
  id text collate "C" primary key check (id ~ '^[0-9a-f]{64}$'),
  index_json bytea not null,
  envelope bytea,
  lock bytea not null,
  missing bytea,
  manifests text not null,
  expires_at timestamptz not null
);
create index bundle_files_expiry on bundle_files (expires_at);
