-- API tokens: only their hashes, so nobody who reads this table can use one. A token has 256 random bits, so a plain
-- SHA-256 cannot be turned back. Rows stay after revocation: the audit names tokens by their id for ever.
create table api_tokens (
  id uuid primary key default gen_random_uuid(),
  name text collate "C" not null,
  hash bytea not null unique check (octet_length(hash) = 32),
  -- What it may do, as [{"glob": …, "actions": […]}].
  grants jsonb not null,
  admin boolean not null default false,
  created_by text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz
);
-- A name stands for one token at a time.
create unique index api_tokens_name on api_tokens (name) where revoked_at is null;

-- What the registry signs its short-lived tokens with (Ed25519, DER). The one that is not retired signs; the others
-- check what they signed. The private part is erased when a key is retired.
create table token_keys (
  kid text collate "C" primary key,
  public_key bytea not null,
  private_key bytea,
  created_at timestamptz not null default now(),
  retired_at timestamptz,
  check ((private_key is null) = (retired_at is not null))
);
create unique index token_keys_signing on token_keys ((true)) where retired_at is null;
