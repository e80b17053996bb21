-- How much the repositories of a glob may hold. Every quota whose glob matches a repository holds for it.
--
-- Usage is `bytes` and `versions` of the row plus the sum of its rows in quota_changes: whoever adds or takes away content
-- adds a row of its own there, in the same transaction, so there is no row that all writers wait for. Now and then one of
-- them folds these rows in, unless another is at it; a job measures anew.
-- The triggers below do that, whatever door the content came by; and they refuse what is too much, so that no way in can
-- forget to ask. Transactions that commit in the same moment do not see each other, so together they can go over: by no
-- more than they bring, and each brings what one statement holds. The next is refused.
-- Without any quota, a trigger costs a statement some 15 microseconds.
create table quotas (
  id bigint generated always as identity primary key,
  glob text collate "C" not null unique,
  -- The same as a regular expression.
  pattern text not null,
  -- Null: as many as there are.
  max_bytes bigint check (max_bytes >= 0),
  max_versions bigint check (max_versions >= 0),
  bytes bigint not null default 0,
  versions bigint not null default 0,
  set_by text not null,
  set_at timestamptz not null default now(),
  measured_at timestamptz,
  check (max_bytes is not null or max_versions is not null)
);

-- No foreign key to the quota: it would make all writers lock its row, if only in share. Nor is there a key to keep.
create table quota_changes (
  quota_id bigint not null,
  bytes bigint not null,
  versions bigint not null
);
create index quota_changes_quota on quota_changes (quota_id) include (bytes, versions);

create view quota_usage as
  select q.id, q.glob, q.pattern, q.max_bytes, q.max_versions, q.set_by, q.set_at, q.measured_at,
    q.bytes + coalesce(c.bytes, 0)::bigint as bytes, q.versions + coalesce(c.versions, 0)::bigint as versions
  from quotas q, lateral (
    select sum(c.bytes) as bytes, sum(c.versions) as versions from quota_changes c where c.quota_id = q.id
  ) c;

-- Adds to a quota's row what stands beside it. The rows that are folded and those that remain are seen by one statement, so
-- nothing counts twice or not at all. Skipped where somebody else is at it; and where the transaction sees an old state
-- of the row, for it could not write it.
create function fold_quota(quota bigint) returns void language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    return;
  end if;
  perform from quotas q where q.id = quota for no key update skip locked;
  if found then
    with folded as (
      delete from quota_changes c where c.quota_id = quota returning c.bytes, c.versions
    )
    update quotas q set bytes = q.bytes + f.bytes, versions = q.versions + f.versions
    from (select sum(bytes)::bigint as bytes, sum(versions)::bigint as versions from folded) f
    where q.id = quota and f.bytes is not null;
  end if;
end $$;

-- Refuses what was added to one of these quotas where it is too much now. Its class of errors is ours: see db/quotas.ts.
create function refuse_over_quota(charged bigint[]) returns void language plpgsql as $$
declare
  over quota_usage;
begin
  -- So that there are a hundred rows to add up, and not all that were written since the job ran.
  if random() < 0.01 then
    perform fold_quota(id) from unnest(charged) as id order by id;
  end if;
  select u.* into over from quota_usage u
  where u.id = any (charged) and (u.bytes > u.max_bytes or u.versions > u.max_versions)
  order by u.glob limit 1;
  if found then
    raise exception using errcode = 'PQ001', message = 'a quota is spent', detail = json_build_object('glob', over.glob,
      'bytes', over.bytes, 'maxBytes', over.max_bytes, 'versions', over.versions, 'maxVersions', over.max_versions)::text;
  end if;
end $$;

-- A blob counts in every repository that it can be read in. What was there already is not in `moved`. Names and sizes are
-- looked up one by one, along the keys: a plan that is kept must not have been made for a first statement of many rows.
create function charge_links() returns trigger language plpgsql as $$
declare
  sign int := case tg_op when 'INSERT' then 1 else -1 end;
  charged bigint[];
begin
  if not exists (select from quotas) then
    return null;
  end if;
  with changes as (
    insert into quota_changes (quota_id, bytes, versions)
    select q.id, sign * sum(l.size), 0
    from (
      select (select r.name from repositories r where r.id = m.repository_id) as name,
        (select b.size from blobs b where b.digest = m.digest) as size
      from moved m
    ) l join quotas q on l.name ~ q.pattern
    where l.size > 0
    group by q.id
    returning quota_id, bytes
  )
  select array_agg(quota_id) into charged from changes where bytes > 0;
  if charged is not null then
    perform refuse_over_quota(charged);
  end if;
  return null;
end $$;
create trigger charge_new_links after insert on repository_blobs
  referencing new table as moved for each statement execute function charge_links();
create trigger charge_old_links after delete on repository_blobs
  referencing old table as moved for each statement execute function charge_links();

-- A version is a manifest that is not attached to another one: signatures and the like are none.
create function charge_manifests() returns trigger language plpgsql as $$
declare
  sign int := case tg_op when 'INSERT' then 1 else -1 end;
  charged bigint[];
begin
  if not exists (select from quotas) then
    return null;
  end if;
  with changes as (
    insert into quota_changes (quota_id, bytes, versions)
    select q.id, sign * sum(l.size), sign * count(*) filter (where l.is_version)
    from (
      select (select r.name from repositories r where r.id = m.repository_id) as name,
        m.size, m.subject_digest is null as is_version
      from moved m
    ) l join quotas q on l.name ~ q.pattern
    group by q.id
    returning quota_id, bytes
  )
  select array_agg(quota_id) into charged from changes where bytes > 0;
  if charged is not null then
    perform refuse_over_quota(charged);
  end if;
  return null;
end $$;
create trigger charge_new_manifests after insert on manifests
  referencing new table as moved for each statement execute function charge_manifests();
create trigger charge_old_manifests after delete on manifests
  referencing old table as moved for each statement execute function charge_manifests();

-- Who sends a chunked upload, as the limits name them. Null: the registry itself, for a request that holds it open.
alter table uploads add column owner text;
create index uploads_owner on uploads (owner) where state = 'open';
