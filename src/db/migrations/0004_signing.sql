-- Keys: what this site signs bundles with, and whose bundles it takes. A key is named by its public part, so it has one
-- row for ever, whatever becomes of it: a bundle of years ago can still be told whose it was.
--
-- private_key: only while the key signs here. It is erased in the statement that retires or distrusts the key, so that
-- a backup of tomorrow cannot sign as the key of yesterday. `own` remembers that the key was made here.
-- A key that is not distrusted is trusted until expires_at; one that has a private part and is not retired signs.
create table signing_keys (
  keyid text collate "C" primary key check (keyid ~ '^sha256:[0-9a-f]{64}$'),
  name text collate "C" not null,
  public_key bytea not null,
  private_key bytea,
  own boolean not null,
  comment text,
  created_at timestamptz not null default now(),
  trusted_at timestamptz not null default now(),
  expires_at timestamptz,
  retired_at timestamptz,
  distrusted_at timestamptz,
  check (keyid = 'sha256:' || encode(sha256(public_key), 'hex')),
  check (private_key is null or (own and retired_at is null and distrusted_at is null))
);
-- A name stands for one key at a time; the retired and the distrusted are known by their key id only.
create unique index signing_keys_name on signing_keys (name) where retired_at is null and distrusted_at is null;
