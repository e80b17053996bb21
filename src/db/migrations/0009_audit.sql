-- What was done, and what was refused: by whom, with which token, from where. Rows are only ever added. Each request adds
-- its own, so there is no row that all writers wait for; a job seals them afterwards, in batches, each seal with the
-- digest of its events and of the seal before. An event that is changed or taken away breaks its seal, a seal that is
-- taken away breaks the next. Whoever notes the digest of the last seal somewhere else can tell that the end is missing.
create table audit_events (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  who text not null,
  kind text not null,
  token_id uuid,
  address text not null,
  -- Method and route as the code has them, and the path that was asked for.
  action text not null,
  path text not null,
  repository text collate "C",
  digest text collate "C",
  tags text,
  outcome text not null check (outcome in ('done', 'refused', 'failed')),
  status int not null,
  request_id text not null,
  seal bigint
);
create index audit_events_unsealed on audit_events (id) where seal is null;
create index audit_events_seal on audit_events (seal, id);
create index audit_events_repository on audit_events (repository, id);
create index audit_events_who on audit_events (who, id);

create table audit_seals (
  number bigint primary key check (number > 0),
  events int not null check (events > 0),
  digest bytea not null check (octet_length(digest) = 32),
  sealed_at timestamptz not null default now()
);

-- What of an event is sealed. It never changes: old seals are checked with it.
create function audit_text(e audit_events) returns text language sql immutable as $$
  select json_build_array(e.id, (extract(epoch from e.at) * 1000000)::bigint, e.who, e.kind, e.token_id, e.address, e.action,
    e.path, e.repository, e.digest, e.tags, e.outcome, e.status, e.request_id)::text
$$;

create function refuse_audit_change() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and tg_table_name = 'audit_events' then
    if old.seal is null and new.seal is not null and audit_text(old) = audit_text(new) then
      return new;
    end if;
  end if;
  raise exception 'the audit is only ever added to';
end $$;
create trigger audit_events_append_only before update or delete on audit_events
  for each row execute function refuse_audit_change();
create trigger audit_seals_append_only before update or delete on audit_seals
  for each row execute function refuse_audit_change();
