import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql } from './client.ts'
import type { Overrun } from './overrun.ts'

/** Content that is to come into a repository. `size` of a blob: null where it is that of the blob that is here. */
export type Coming = {
  blobs: readonly { repository: RepositoryName; digest: Digest; size: number | null }[]
  manifests: readonly { repository: RepositoryName; digest: Digest; size: number; isVersion: boolean }[]
}

/**
 * The quotas that would refuse all of it together, with what each would come to: by the rules of their triggers (migration
 * 14). What is in a repository already takes no room in it, and a quota that nothing is added to does not refuse.
 */
export async function overrunsOf(sql: Sql, { blobs, manifests }: Coming): Promise<Overrun[]> {
  const rows = await sql<Overrun[]>`
    with coming as (
      select w.name, coalesce(w.size, (select b.size from blobs b where b.digest = w.digest), 0) as size, 0 as versions
      from unnest(${blobs.map(({ repository }) => repository as string)}::text[],
        ${blobs.map(({ digest }) => digest as string)}::text[], ${blobs.map(({ size }) => size)}::bigint[])
        as w (name, digest, size)
      where not exists (
        select from repository_blobs l
        where l.repository_id = (select r.id from repositories r where r.name = w.name) and l.digest = w.digest)
      union all
      select w.name, w.size, w.versions
      from unnest(${manifests.map(({ repository }) => repository as string)}::text[],
        ${manifests.map(({ digest }) => digest as string)}::text[], ${manifests.map(({ size }) => size)}::bigint[],
        ${manifests.map(({ isVersion }) => Number(isVersion))}::int[]) as w (name, digest, size, versions)
      where not exists (
        select from manifests m
        where m.repository_id = (select r.id from repositories r where r.name = w.name) and m.digest = w.digest)
    ), added as (
      select q.id, sum(c.size)::bigint as bytes, sum(c.versions)::bigint as versions
      from coming c join quotas q on c.name ~ q.pattern
      group by q.id
    )
    select u.glob, u.max_bytes as "maxBytes", u.max_versions as "maxVersions", u.bytes + a.bytes as bytes,
      u.versions + a.versions as versions
    from quota_usage u join added a on a.id = u.id
    where a.bytes > 0 and (u.bytes + a.bytes > u.max_bytes or u.versions + a.versions > u.max_versions)
    order by u.glob`
  return [...rows]
}
