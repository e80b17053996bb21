-- The collector's step: it locks the next rows that are due, and judges them. What it may meet, and why it is safe, stands
-- in registry/collect.ts. One call for both, because rows that travel to a process only to be named again cost that
-- process, which serves others meanwhile, more than half of its time for them.
--
-- Both are volatile, and run in read committed: so each statement in them sees what was committed before it, and what is
-- judged is judged by what was there when it had been locked. What somebody else has locked is left for the next pass.
--
-- `until`: what is due by then. The place, `after_…`: the last row of the step before, in the order of review times.
-- Answered: the place of this step, how many rows it looked at (fewer than `most`: there are no more), and what it did.

create function collect_links(
  until timestamptz, after_at timestamptz, after_repository bigint, after_digest text, most integer, grace interval,
  out last_at timestamptz, out last_repository bigint, out last_digest text, out seen integer,
  out kept integer, out gone integer
) language plpgsql volatile as $$
declare
  repositories bigint[];
  digests text[];
begin
  select array_agg(due.repository_id), array_agg(due.digest), count(*), max(due.review_at)
  into repositories, digests, seen, last_at
  from (
    select l.repository_id, l.digest, l.review_at
    from repository_blobs l join blobs b on b.digest = l.digest
    where l.review_at <= until
      and (l.review_at, l.repository_id, l.digest) > (after_at, after_repository, after_digest collate "C")
    order by l.review_at, l.repository_id, l.digest limit most
    for no key update of b skip locked for update of l skip locked
  ) due;
  last_repository := repositories[seen];
  last_digest := digests[seen];
  -- Goes: what no manifest of the repository needs. What a manifest only waits for (see awaited_blobs) is looked at again
  -- after the grace, the others when something has changed. A blob that lost a link is looked at next.
  -- Subqueries of one row, along an index: an `exists` the planner may take for a reason to read the whole table once.
  with judged as materialized (
    select d.repository_id, d.digest,
      coalesce((select true from manifest_blobs e
        where e.repository_id = d.repository_id and e.blob_digest = d.digest limit 1), false) as needed,
      coalesce((select true from awaited_blobs a
        where a.repository_id = d.repository_id and a.blob_digest = d.digest limit 1), false) as awaited
    from unnest(repositories, digests) as d (repository_id, digest)
  ), stay as (
    update repository_blobs l set review_at = case when j.needed then null else now() + grace end
    from judged j
    where (j.needed or j.awaited) and l.repository_id = j.repository_id and l.digest = j.digest
    returning 1
  ), go as (
    delete from repository_blobs l using judged j
    where not (j.needed or j.awaited) and l.repository_id = j.repository_id and l.digest = j.digest
    returning l.digest
  ), freed as (
    update blobs b set review_at = now() from go where b.digest = go.digest and b.review_at is null
  )
  select (select count(*) from stay), (select count(*) from go) into kept, gone;
end $$;

-- Goes: what no repository and no import has; its object is queued for deletion. What an import relies on is looked at
-- again after the grace, the others when they lose a link. `bytes`: the size of what went.
create function collect_blobs(
  until timestamptz, after_at timestamptz, after_digest text, most integer, grace interval,
  out last_at timestamptz, out last_digest text, out seen integer, out kept integer, out gone integer, out bytes bigint
) language plpgsql volatile as $$
declare
  digests text[];
begin
  select array_agg(due.digest), count(*), max(due.review_at) into digests, seen, last_at
  from (
    select b.digest, b.review_at from blobs b
    where b.review_at <= until and (b.review_at, b.digest) > (after_at, after_digest collate "C")
    order by b.review_at, b.digest limit most for update skip locked
  ) due;
  last_digest := digests[seen];
  with judged as materialized (
    select d.digest,
      coalesce((select true from repository_blobs l where l.digest = d.digest limit 1), false) as linked,
      coalesce((select true from import_blobs i
        where i.digest = d.digest and i.storage_key is null limit 1), false) as relied_on
    from unnest(digests) as d (digest)
  ), stay as (
    update blobs b set review_at = case when j.linked then null else now() + grace end
    from judged j where (j.linked or j.relied_on) and b.digest = j.digest
    returning 1
  ), go as (
    delete from blobs b using judged j where not (j.linked or j.relied_on) and b.digest = j.digest
    returning b.storage_key, b.size
  ), queued as (
    insert into blob_deletions (storage_key) select storage_key from go on conflict do nothing
  )
  select (select count(*) from stay), count(*), coalesce(sum(go.size), 0) into kept, gone, bytes from go;
end $$;
