import type { Fragment, Sql } from '../../src/db/client.ts'
import { refreshPack } from '../../src/db/packs.ts'
import type { PackId } from '../../src/packs/pack.ts'
import { precedenceOf, type Version } from '../../src/packs/version.ts'
import { content, manifestOf } from './oci.ts'

export const packCount = 10_000
/** A pack needs, in a binary tree, the others of its family: the closure of the first is the whole of it. */
export const familySize = 200
/** A major version has so many minor ones; a version needs others of its own major version. */
const minorVersions = 25

/** In every pack's description. */
export const commonWord = 'benchmark'
/** Each starts the ids of one in a hundred packs, and is a keyword of them; of one in ten it is in the description too. */
const rareWords = Array.from({ length: 100 }, (_, at) => `topic${String(at).padStart(2, '0')}`)

export const packName = (index: number) => `${rareWords[index % rareWords.length]}-${String(index).padStart(6, '0')}`
/** The same in SQL. */
const idOf = (sql: Sql, index: Fragment) =>
  sql`concat('topic', lpad((${index} % 100)::text, 2, '0'), '-', lpad((${index})::text, 6, '0'))`
const versionAt = (at: number) => `${1 + Math.floor(at / minorVersions)}.${at % minorVersions}.0` as Version

/** What people type: a word that a hundred packs have, the start of an id, two words, one that all have. */
export function searches(count: number): string[] {
  const rare = (at: number) => rareWords[(at * 37) % rareWords.length] ?? ''
  const kinds = [
    (at: number) => rare(at),
    (at: number) => packName((at * 7919) % packCount).slice(0, -1),
    (at: number) => `${rare(at)} policy`,
    (at: number) => (at % 5 === 0 ? commonWord : `${rare(at)} ${commonWord}`),
  ]
  return Array.from({ length: count }, (_, at) => kinds[at % kinds.length]?.(at) ?? '')
}

const config = content(Buffer.from('{}'))
const manifest = manifestOf(config, [])
const { mediaType } = JSON.parse(manifest.bytes.toString()) as { mediaType: string }

/** Brings packs without versions into being. All versions of a pack will be one manifest. */
export async function addPacks(sql: Sql): Promise<void> {
  await sql`
    with added as (
      insert into repositories (name) select 'packs/' || id from unnest(${packIds()}::text[]) as id returning id, name
    ), packs as (
      insert into packs (repository_id, pack_id) select id, substr(name, 7) from added
    )
    insert into manifests (repository_id, digest, media_type, size, payload)
    select id, ${manifest.digest}, ${mediaType}, ${manifest.bytes.length}::int, ${manifest.bytes} from added`
}

const packIds = () => Array.from({ length: packCount }, (_, index) => packName(index))

/**
 * Gives every pack the versions from `first` up to, not including, `end`, straight into the tables: by pushes a million
 * would take an hour. What follows from them is made by the registry's own statement. Left out is what nothing here
 * asks: tags of versions, content, and dependencies the other way round.
 */
export async function addVersions(sql: Sql, { first, end }: { first: number; end: number }): Promise<void> {
  const versions = Array.from({ length: end - first }, (_, at) => versionAt(first + at))
  // Nothing can dangle, and looking up a million keys takes longer than all the rest.
  await sql`set session_replication_role = replica`
  await sql`
    insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document, dependencies,
      manifest_digest, content_digest, content_size, content_type, published_at)
    select p.repository_id, v.version, v.version, v.precedence, false, p.type,
      concat('{"packId":"', p.id, '","version":"', v.version, '","type":"', p.type, '","name":"Pack ', p.id,
        '","description":"A pack of the ${sql.unsafe(commonWord)}, about ', p.about, '","author":"author', p.i % 20,
        '","dependencies":', coalesce(d.list, '[]'), ',"metadata":{"keywords":["', p.word, '","', p.type, '"]}}')::json,
      d.list, ${manifest.digest}, ${config.digest}, 2, 'application/gzip', now() - (p.i || ' minutes')::interval
    from (
      select p.repository_id, p.pack_id as id, i.i, (array['policy', 'analyzer', 'task'])[1 + i.i % 3] as type, w.word,
        case when i.i / 100 % 10 = 0 then w.word else 'nothing else' end as about
      from unnest(${packIds()}::text[]) with ordinality as q (pack_id, n)
      cross join lateral (select q.n::int - 1 as i) as i
      join packs p on p.pack_id = q.pack_id
      cross join lateral (select (${rareWords}::text[])[1 + i.i % 100] as word) as w
    ) p
    cross join unnest(${versions}::text[], ${versions.map(precedenceOf)}::text[]) as v (version, precedence)
    cross join lateral (
      select '[' || string_agg(concat('{"packId":"', ${idOf(sql, sql`(p.i - p.i % ${familySize} + c)`)},
        '","version":"^', split_part(v.version, '.', 1), '.', split_part(v.version, '.', 2)::int / 5 * 5, '.0"}'), ',') || ']' as list
      from unnest(array[p.i % ${familySize} * 2 + 1, p.i % ${familySize} * 2 + 2]) as c where c < ${familySize}
    ) d`
  await sql`set session_replication_role = origin`
  await sql`analyze pack_versions`
  await refresh(sql)
  await sql`vacuum analyze`
}

async function refresh(sql: Sql): Promise<void> {
  const all = packIds() as PackId[]
  for (let at = 0; at < all.length; at += 500)
    await sql.begin((tx) => Promise.all(all.slice(at, at + 500).map((packId) => refreshPack(tx, packId))))
}
