import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Dependency, PackId, PackState, PackType } from '../packs/pack.ts'
import type { Candidate } from '../packs/resolve.ts'
import { releaseOf, type Version, versionOfPrecedence } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'

/**
 * What resolution looks at: all living versions of these packs, the highest first. Packs of which there are none are
 * left out. `channel`: its version is marked as preferred.
 */
export async function findCandidates(
  sql: Sql | Transaction,
  packIds: readonly PackId[],
  channel?: Tag,
): Promise<Map<PackId, Candidate[]>> {
  // A line per version, one text per pack: 20,000 rows, or JSON for them, would cost five times as much.
  const rows = await sql<{ packId: PackId; lines: string; named: string | null }[]>`
    select p.pack_id as "packId", string_agg(concat(v.version, E'\\t', v.state, E'\\t', v.min_runner, E'\\t', v.max_runner,
      E'\\t', v.dependencies), E'\\n' order by v.precedence desc) as lines,
      min(v.version) filter (where v.manifest_digest = t.manifest_digest) as named
    from packs p
    join pack_versions v on v.repository_id = p.repository_id and v.deleted_at is null
    left join tags t on t.repository_id = p.repository_id and t.name = ${channel ?? null}
    where p.pack_id = any(${packIds as readonly string[]}::text[])
    group by p.pack_id`
  const read = reader()
  return new Map(rows.map(({ packId, lines, named }) => [packId, lines.split('\n').map((line) => read(line, named))]))
}

/** Reads lines. Equal dependencies are one list: most versions of a pack depend on the same as the one before. */
function reader(): (line: string, named: string | null) => Candidate {
  const lists = new Map<string, readonly Dependency[]>()
  return (line, named) => {
    const [version = '', state = '', min, max, text = ''] = line.split('\t')
    const dependencies = lists.get(text) ?? (text ? (JSON.parse(text) as Dependency[]) : [])
    lists.set(text, dependencies)
    return {
      version: version as Version,
      state: state as PackState,
      dependencies,
      ...(min ? { minRunner: versionOfPrecedence(min) } : {}),
      ...(max ? { maxRunner: versionOfPrecedence(max) } : {}),
      ...(version === named ? { preferred: true } : {}),
    }
  }
}

/** What a lock says of a version. */
export type LockRow = {
  packId: PackId
  version: Version
  type: PackType
  digest: Digest
  size: number
  mediaType: string
  title: string | null
  manifestDigest: Digest
  manifestSize: number
  dependencies: Dependency[]
}

/** These versions as a lock lists them, by the ids of their packs; those that are there no more are left out. */
export async function findLockRows(sql: Sql | Transaction, chosen: ReadonlyMap<PackId, Version>): Promise<LockRow[]> {
  const rows = await sql<(Omit<LockRow, 'dependencies'> & { dependencies: string | null })[]>`
    select p.pack_id as "packId", v.version, v.type, v.content_digest as digest, v.content_size as size,
      v.content_type as "mediaType", v.content_title as title, v.manifest_digest as "manifestDigest",
      m.size as "manifestSize", v.dependencies
    from unnest(${[...chosen.keys()] as string[]}::text[], ${[...chosen.values()].map(releaseOf) as string[]}::text[],
      ${[...chosen.values()] as string[]}::text[]) as q (pack_id, release, version)
    join packs p on p.pack_id = q.pack_id
    join pack_versions v on v.repository_id = p.repository_id and v.release = q.release and v.version = q.version
      and v.deleted_at is null
    join manifests m on m.repository_id = v.repository_id and m.digest = v.manifest_digest
    order by p.pack_id`
  return rows.map((row) => ({ ...row, dependencies: row.dependencies === null ? [] : JSON.parse(row.dependencies) }))
}
