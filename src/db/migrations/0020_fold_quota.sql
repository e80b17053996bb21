-- Whoever folds a quota keeps its row until the transaction ends. One that goes on for minutes, as that of an import, would
-- keep everybody from setting or measuring the quota for as long: it says so (`packs.long`), and leaves that to others.
create or replace function refuse_over_quota(charged bigint[]) returns void language plpgsql as $$
declare
  over quota_usage;
begin
  -- So that there are a hundred rows to add up, and not all that were written since the job ran.
  if random() < 0.01 and current_setting('packs.long', true) is distinct from 'on' then
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
