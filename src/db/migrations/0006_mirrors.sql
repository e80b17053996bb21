-- Other registries that packs are pushed to or pulled from. credentials: sealed (registry/sealed.ts), so that neither a
-- query nor a dump shows them; never answered, never logged.
create table mirrors (
  id uuid primary key default gen_random_uuid(),
  name text collate "C" not null unique,
  direction text not null check (direction in ('push', 'pull')),
  url text not null,
  -- what stands before the id of a pack there
  prefix text collate "C" not null,
  selection jsonb not null,
  -- five fields of cron, in UTC
  schedule text,
  credentials bytea,
  options jsonb not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- A run goes through waiting, running, then completed or failed; one that failed may run again. progress: how far it is,
-- and where uploads under way were left. report: how both sides compare, by digest.
create table mirror_runs (
  id uuid primary key default gen_random_uuid(),
  mirror_id uuid not null references mirrors (id) on delete cascade,
  dry_run boolean not null,
  state text not null default 'waiting' check (state in ('waiting', 'running', 'completed', 'failed')),
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  progress jsonb not null default '{}',
  report jsonb,
  error text
);
create index mirror_runs_newest on mirror_runs (mirror_id, created_at desc);
