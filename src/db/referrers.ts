import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql } from './client.ts'

export type Referrer = {
  digest: Digest
  mediaType: string
  size: number
  artifactType: string | null
  annotations: Record<string, string> | null
}

/**
 * Manifests whose subject is `subject`, after `last` by digest: at most `limit`, and no more than fit in `maxBytes`
 * of answer (but always one). `more`: there are others behind them.
 */
export async function listReferrers(
  sql: Sql,
  repository: RepositoryName,
  subject: Digest,
  { artifactType, last, limit, maxBytes }: { artifactType?: string; last: string; limit: number; maxBytes: number },
): Promise<{ referrers: Referrer[]; more: boolean }> {
  const rows = await sql<(Referrer & { position: number; bytes: number })[]>`
    select digest, media_type as "mediaType", size, artifact_type as "artifactType", position::int,
      total::float8 as bytes, case when position <= ${limit} and (total <= ${maxBytes} or position = 1)
        then annotations end as annotations
    from (
      select m.*, row_number() over rows as position,
        sum(400 + coalesce(octet_length(m.annotations::text), 0)) over rows as total
      from repositories r
      join manifests m on m.repository_id = r.id and m.subject_digest = ${subject} and m.digest > ${last}
        and (${artifactType ?? null}::text is null or m.artifact_type = ${artifactType ?? null})
      where r.name = ${repository}
      window rows as (order by m.digest)
    ) page
    where position <= ${limit + 1} order by position`
  const fit = rows.filter((row) => row.position <= limit && (row.bytes <= maxBytes || row.position === 1))
  return {
    referrers: fit.map(({ position, bytes, ...referrer }) => referrer),
    more: rows.length > fit.length,
  }
}
