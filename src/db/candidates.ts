import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { Dependency, PackId, PackState, PackType } from '../packs/pack.ts'
import type { Candidate } from '../packs/resolve.ts'
import { releaseOf, type Version, versionOfPrecedence } from '../packs/version.ts'
import type { Fragment, Sql, Transaction } from './client.ts'

/**
 * What resolution looks at: all living versions of these packs, the highest first. Packs of which there are none are
 * left out. `channel`: its version is marked as preferred.
 */
export async function findCandidates(
  sql: Sql | Transaction,
  packIds: readonly PackId[],
  channel?: Tag,
): Promise<Map<PackId, Candidate[]>> {
  const rows = await sql<{ packId: PackId; lines: string; named: string | null }[]>`
    select p.pack_id as "packId", p.candidates as lines,
      ${channel === undefined ? sql`null` : versionNamed(sql, sql`p.repository_id`, channel)} as named
    from packs p where p.pack_id = any(${packIds as readonly string[]}::text[]) and p.candidates is not null`
  const read = reader()
  return new Map(rows.map(({ packId, lines, named }) => [packId, lines.split('\n').map((line) => read(line, named))]))
}

/** The version that a channel names: an SQL expression. The highest, where one manifest is several versions. */
function versionNamed(sql: Sql | Transaction, repositoryId: Fragment, channel: Tag): Fragment {
  return sql`(
    select v.version from tags t
    join pack_versions v on v.repository_id = t.repository_id and v.manifest_digest = t.manifest_digest
      and v.deleted_at is null
    where t.repository_id = ${repositoryId} and t.name = ${channel}
    order by v.precedence desc limit 1)`
}

/**
 * All living versions of a pack, the highest first: an SQL expression, a line for each; null where there are none.
 * Its fields are separated by tabs (JSON text has none): version, state, precedences of the runner, dependencies.
 */
export function candidatesOf(sql: Sql | Transaction, repositoryId: Fragment): Fragment {
  return sql`(
    select string_agg(concat_ws(E'\\t', v.version, v.state, coalesce(v.min_runner, ''), coalesce(v.max_runner, ''),
      coalesce(v.dependencies, '')), E'\\n' order by v.precedence desc)
    from pack_versions v where v.repository_id = ${repositoryId} and v.deleted_at is null)`
}

type Facts = Omit<Candidate, 'version'>

/**
 * Reads lines. Of most versions of a pack all but the number is the same as of others, so it is read once, and equal
 * dependencies are one list.
 */
function reader(): (line: string, named: string | null) => Candidate {
  // Hashing a line costs more than comparing it to the one before.
  let last: { text: string; facts: Facts } | undefined
  const known = new Map<string, Facts>()
  const lists = new Map<string, readonly Dependency[]>([['', []]])
  const factsOf = (text: string): Facts => {
    const [state = '', min, max, written = ''] = text.split('\t')
    const dependencies = lists.get(written) ?? (JSON.parse(written) as Dependency[])
    lists.set(written, dependencies)
    const minRunner = min ? versionOfPrecedence(min) : undefined
    const maxRunner = max ? versionOfPrecedence(max) : undefined
    return { state: state as PackState, dependencies, minRunner, maxRunner }
  }
  return (line, named) => {
    const end = line.indexOf('\t')
    const version = line.slice(0, end) as Version
    const text = line.slice(end + 1)
    if (last?.text !== text) {
      last = { text, facts: known.get(text) ?? factsOf(text) }
      known.set(text, last.facts)
    }
    // Spelled out: all have one shape, which halves the time that 20,000 of them take.
    const { state, dependencies, minRunner, maxRunner } = last.facts
    return { version, state, dependencies, minRunner, maxRunner, preferred: version === named }
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
    select p.pack_id as "packId", found.*
    from unnest(${[...chosen.keys()] as string[]}::text[], ${[...chosen.values()].map(releaseOf) as string[]}::text[],
      ${[...chosen.values()] as string[]}::text[]) as q (pack_id, release, version)
    join packs p on p.pack_id = q.pack_id,
    -- One by one, along the primary keys: left to join as it likes, the planner may begin with all that are 1.0.0.
    lateral (
      select v.version, v.type, v.content_digest as digest, v.content_size as size, v.content_type as "mediaType",
        v.content_title as title, v.manifest_digest as "manifestDigest", m.size as "manifestSize", v.dependencies
      from pack_versions v join manifests m on m.repository_id = v.repository_id and m.digest = v.manifest_digest
      where v.repository_id = p.repository_id and v.release = q.release and v.version = q.version
        and v.deleted_at is null
      limit 1
    ) found
    order by p.pack_id`
  return rows.map((row) => ({ ...row, dependencies: row.dependencies === null ? [] : JSON.parse(row.dependencies) }))
}
