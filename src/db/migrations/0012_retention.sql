-- What is removed by itself, what never is, and what came of it. See spec/retention.md.

-- document: what the policy says, as its administrator wrote it (registry/retention-policy.ts).
create table retention_policies (
  name text collate "C" primary key,
  document json not null,
  enabled boolean not null,
  updated_by text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- A version that nobody may delete until it is released. No foreign key: rows of versions can be made again from their
-- manifests, and a hold outlives that. Placed and released under the lock of the pack, as versions are deleted.
create table holds (
  pack_id text collate "C" not null,
  version text collate "C" not null,
  reason text not null,
  held_by text not null,
  held_at timestamptz not null default now(),
  primary key (pack_id, version)
);

-- A run first plans: repository after repository, it writes down what the policies would have removed; planned_to is the
-- last one that it has been through. Then it removes, one decision after the other, each looked at again and marked in
-- the transaction that carries it out: whoever goes on with a run that was cut does nothing twice. policy: null: all
-- that are enabled. tally: how many things were kept, and why.
create table retention_runs (
  id uuid primary key default gen_random_uuid(),
  policy text collate "C",
  asked_by text not null,
  state text not null default 'waiting' check (state in ('waiting', 'planning', 'removing', 'completed', 'failed')),
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  planned_to text collate "C" not null default '',
  tally jsonb not null default '{}',
  freed_bytes bigint not null default 0,
  error text
);
create index retention_runs_newest on retention_runs (created_at desc, id desc);

-- outcome: null while it waits; kept: looked at again, it was not to go any more (outcome_reason); gone: somebody else
-- was faster. number: the order of decisions in a run.
create table retention_removals (
  run_id uuid not null references retention_runs (id) on delete cascade,
  number int not null,
  repository text collate "C" not null,
  kind text not null check (kind in ('version', 'prerelease', 'tag', 'untagged')),
  name text collate "C" not null,
  policy text collate "C" not null,
  reason text not null,
  outcome text check (outcome in ('removed', 'kept', 'gone')),
  outcome_reason text,
  decided_at timestamptz,
  primary key (run_id, number)
);
create index retention_removals_waiting on retention_removals (run_id, number) where outcome is null;

-- Which bundles have a manifest as a member, and when tags left a manifest, are asked of every version and of every
-- untagged manifest.
create index manifest_children_digest on manifest_children (child_digest);
create index tag_history_manifest on tag_history (repository_id, manifest_digest) where manifest_digest is not null;

-- Why something was done, where somebody said so. It is sealed with the event; the text of an event without a reason is
-- what it was before there were any, so seals made then still hold.
alter table audit_events add column reason text;
create or replace function audit_text(e audit_events) returns text language sql immutable as $$
  select case when e.reason is null
    then json_build_array(e.id, (extract(epoch from e.at) * 1000000)::bigint, e.who, e.kind, e.token_id, e.address, e.action,
      e.path, e.repository, e.digest, e.tags, e.outcome, e.status, e.request_id)
    else json_build_array(e.id, (extract(epoch from e.at) * 1000000)::bigint, e.who, e.kind, e.token_id, e.address, e.action,
      e.path, e.repository, e.digest, e.tags, e.outcome, e.status, e.request_id, e.reason)
  end::text
$$;
