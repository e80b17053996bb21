import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { PackId, PackState } from '../packs/pack.ts'
import { releaseOf, type Version } from '../packs/version.ts'
import type { Fragment, Sql } from './client.ts'

// Versions as they are answered. What writes them is packs.ts.

/** A version as it is answered: `text` is JSON. `key`: where its content is; absent: it is an index. */
export type VersionRow = {
  packId: PackId
  version: Version
  state: PackState
  text: string
  manifestDigest: Digest
  digest: Digest
  size: number
  mediaType: string
  title: string | null
  key: ObjectKey | undefined
} & Runners

/** Precedences: see version.ts. */
export type Runners = { minRunner: string | null; maxRunner: string | null }

type Selector = { packId: PackId; version?: Version | undefined; tag?: string | undefined }

/**
 * Looks up many versions, each by its number or by a tag (a channel, or `latest`); the answers stand in the order of
 * the questions.
 */
export async function findVersions(sql: Sql, asked: Selector[]): Promise<(VersionRow | undefined)[]> {
  const rows = await sql<(VersionRow & { i: number; storageKey: string | null })[]>`
    select q.i::int, p.pack_id as "packId", v.version, v.state, ${textOf(sql)} as text,
      v.manifest_digest as "manifestDigest", v.content_digest as digest, v.content_size as size,
      v.content_type as "mediaType", v.content_title as title, v.min_runner as "minRunner", v.max_runner as "maxRunner",
      b.storage_key as "storageKey"
    from ${versionsNamed(sql, asked)}
    left join repository_blobs l on l.repository_id = v.repository_id and l.digest = v.content_digest
    left join blobs b on b.digest = l.digest and b.damaged_at is null`
  const found: (VersionRow | undefined)[] = new Array(asked.length)
  for (const { i, storageKey, ...row } of rows)
    found[i - 1] = { ...row, key: storageKey === null ? undefined : storedKey(storageKey) }
  return found
}

/** What is said of versions, as JSON texts. Hot: see findManifests. */
export async function findDescriptions(sql: Sql, asked: Selector[]): Promise<(string | undefined)[]> {
  const rows = await sql`select q.i || ' ' || ${textOf(sql)} from ${versionsNamed(sql, asked)}`.values()
  const found: (string | undefined)[] = new Array(asked.length)
  for (const [row] of rows as unknown as [string][]) {
    const space = row.indexOf(' ')
    found[Number(row.slice(0, space)) - 1] = row.slice(space + 1)
  }
  return found
}

/** The content of a version. It is in the store for as long as the version lives: its manifest holds it. */
export type VersionContent = Pick<VersionRow, 'packId' | 'version' | 'digest' | 'mediaType' | 'title'>

/** The content of versions, but for bundles that are an index. Hot: see findManifests. */
export async function findContents(sql: Sql, asked: Selector[]): Promise<(VersionContent | undefined)[]> {
  const rows = await sql`
    select concat_ws(' ', q.i, v.version, v.content_digest, v.content_type, v.content_title)
    from ${versionsNamed(sql, asked)} where v.content_digest <> v.manifest_digest`.values()
  const found: (VersionContent | undefined)[] = new Array(asked.length)
  for (const [row] of rows as unknown as [string][]) {
    // A title may have spaces.
    const [i, version, digest, mediaType = '', ...title] = row.split(' ')
    const { packId } = asked[Number(i) - 1] as Selector
    found[Number(i) - 1] = {
      packId,
      version: version as Version,
      digest: digest as Digest,
      mediaType,
      title: title.length > 0 ? title.join(' ') : null,
    }
  }
  return found
}

/**
 * The versions that selectors name, as `v`, each with the place of its question as `q.i`. A tag names the highest where
 * its manifest is several. Tags are looked at where some selector has one: that costs as much as all the rest.
 */
function versionsNamed(sql: Sql, asked: Selector[]): Fragment {
  const words = (word: (selector: Selector) => string | undefined) =>
    asked.map((selector) => word(selector) ?? '-').join(' ')
  const questions = sql`unnest(
      string_to_array(${words((a) => a.packId)}::text, ' '),
      string_to_array(${words((a) => a.version && releaseOf(a.version))}::text, ' ', '-'),
      string_to_array(${words((a) => a.version)}::text, ' ', '-'), string_to_array(${words((a) => a.tag)}::text, ' ', '-'))
      with ordinality as q (pack_id, release, version, tag, i)
    join packs p on p.pack_id = q.pack_id`
  if (asked.every((selector) => selector.tag === undefined))
    return sql`${questions} join pack_versions v on v.repository_id = p.repository_id and v.release = q.release
      and v.version = q.version and v.deleted_at is null`
  return sql`${questions}
    left join tags t on t.repository_id = p.repository_id and t.name = q.tag
    join lateral (
      select * from pack_versions n
      where n.repository_id = p.repository_id and n.release = q.release and n.version = q.version and n.deleted_at is null
      union all
      (select * from pack_versions n
      where n.repository_id = p.repository_id and n.manifest_digest = t.manifest_digest and n.deleted_at is null
      order by n.precedence desc limit 1)
    ) v on true`
}

/**
 * A version, `v`, as it is answered: an SQL expression, JSON text. The document is put in as it is stored. Names of
 * channels and media types have nothing in them that JSON would escape; what is null leaves its field out.
 */
function textOf(sql: Sql): Fragment {
  return sql`concat(left(v.document::text, -1), ',"digest":"', v.content_digest, '","size":', v.content_size,
    ',"mediaType":"', v.content_type, '","manifestDigest":"', v.manifest_digest, '","publishedAt":"', ${publishedAt(sql)},
    '","state":"', v.state, '"', ',"message":' || to_json(v.message)::text, ',"replacedBy":' || to_json(v.replaced_by)::text,
    ',"channels":[', '"' || nullif(array_to_string(${channelsOf(sql)}, '","'), '') || '"', ']}')`
}

/** A version as lists have it. `document` is JSON text. */
export type ListedVersion = {
  version: Version
  state: PackState
  message: string | null
  replacedBy: string | null
  document: string
  manifestDigest: Digest
  digest: Digest
  size: number
  publishedAt: string
  channels: string[]
} & Runners

/** All living versions of a pack, the highest first; undefined where there is no such pack, or none of it is left. */
export async function listVersions(sql: Sql, packId: PackId): Promise<ListedVersion[] | undefined> {
  const rows = await sql<ListedVersion[]>`
    select v.version, v.state, v.message, v.replaced_by as "replacedBy", v.document::text as document,
      v.manifest_digest as "manifestDigest", v.content_digest as digest, v.content_size as size,
      ${publishedAt(sql)} as "publishedAt", v.min_runner as "minRunner", v.max_runner as "maxRunner",
      ${channelsOf(sql)} as channels
    from packs p join pack_versions v on v.repository_id = p.repository_id
    where p.pack_id = ${packId} and v.deleted_at is null
    order by v.precedence desc`
  return rows.length > 0 ? [...rows] : undefined
}

function publishedAt(sql: Sql): Fragment {
  return sql`to_char(v.published_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
}

function channelsOf(sql: Sql): Fragment {
  // Most versions have their own tag and perhaps this one: no need to match those, which takes a microsecond each.
  return sql`array(select c.name from tags c where c.repository_id = v.repository_id
      and c.manifest_digest = v.manifest_digest and c.name <> v.version
      and (c.name = 'latest' or c.name !~ ${channelPattern}) order by c.name)`
}

/** Tags that are no channels: versions, and what belongs to another manifest. See packs/channel.ts. */
export const channelPattern = '^([vV]?[0-9]+\\.[0-9]+\\.[0-9]+|sha(256|512)-[0-9a-f]{64})'
