import type { Digest } from '../oci/digest.ts'
import type { Manifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { Fragment, Sql, Transaction } from './client.ts'
import { repositoryNamed, repositoryOf } from './repositories.ts'

/** A manifest as it is served. `payload` is undefined only where the asker has the bytes or does not want them. */
export type StoredManifest = { digest: Digest; mediaType: string; size: number; payload: Buffer | undefined }

export type ManifestQuestion = {
  repository: RepositoryName
  digest: Digest | undefined
  tag: Tag | undefined
  /** The digest whose bytes the asker has at hand: they are not sent again. `all`: it wants no bytes at all. */
  known: Digest | 'all' | undefined
}

/** A tag that is to be asked of its upstream again is as if it were not there. */
const fresh = '(t.recheck_at is null or t.recheck_at > now())'

/** `known`: where the statement has what the asker knows. */
const bytesUnless = (known: string) => `case when ${known} in (m.digest, 'all') then null else m.payload end`

/**
 * Each is looked up by itself, by all of its key: joined, where most repositories have few tags and manifests, the planner
 * reads all that one of them has.
 */
const many = `
  select concat_ws(' ', q.i, m.digest, m.size, m.media_type), ${bytesUnless('q.known')}
  from unnest(
    string_to_array($1::text, ' '), string_to_array($2::text, ' ', '-'),
    string_to_array($3::text, ' ', '-'), string_to_array($4::text, ' ', '-'))
    with ordinality as q (name, digest, tag, known, i)
  ${repositoryOf('q.name')}
  left join lateral (
    select manifest_digest from tags t where t.repository_id = r.id and t.name = q.tag and ${fresh} limit 1
  ) t on true
  cross join lateral (
    select * from manifests where repository_id = r.id and digest = coalesce(q.digest, t.manifest_digest) limit 1
  ) m`

const oneByDigest = `
  select m.digest, m.media_type, m.size, ${bytesUnless('$3')} from manifests m
  where m.repository_id = ${repositoryNamed('$1')} and m.digest = $2`
const oneByTag = `
  select m.digest, m.media_type, m.size, ${bytesUnless('$3')} from tags t
  cross join lateral (
    select * from manifests where repository_id = t.repository_id and digest = t.manifest_digest limit 1
  ) m
  where t.repository_id = ${repositoryNamed('$1')} and t.name = $2 and ${fresh}`

/**
 * Looks up manifests by digest or tag; the answers stand in the order of the questions.
 * The hottest statement there is. Questions go as one text each, and a row comes back as one, because packing and
 * unpacking arrays and columns costs more than the look-up: none of these words can have a space in it, nor be "-".
 */
export async function findManifests(sql: Sql, asked: ManifestQuestion[]): Promise<(StoredManifest | undefined)[]> {
  const [only] = asked
  if (only && asked.length === 1) return [await findManifest(sql, only)]
  const words = (word: (question: ManifestQuestion) => string | undefined) =>
    asked.map((question) => word(question) ?? '-').join(' ')
  const lists = [words((q) => q.repository), words((q) => q.digest), words((q) => q.tag), words((q) => q.known)]
  const rows = await sql.unsafe(many, lists, { prepare: true }).values()
  const found: (StoredManifest | undefined)[] = new Array(asked.length)
  for (const [text, payload] of rows as unknown as [string, Buffer | null][]) {
    const [i = '', digest, size, mediaType = ''] = text.split(' ')
    found[Number(i) - 1] = { digest: digest as Digest, mediaType, size: Number(size), payload: payload ?? undefined }
  }
  return found
}

/** A single question has no lists to unpack, which takes a quarter to two fifths of the time. */
async function findManifest(
  sql: Sql,
  { repository, digest, tag, known }: ManifestQuestion,
): Promise<StoredManifest | undefined> {
  const asked = [repository, digest ?? tag ?? null, known ?? null]
  const [row] = await sql.unsafe(digest ? oneByDigest : oneByTag, asked, { prepare: true }).values()
  if (!row) return undefined
  const [found, mediaType, size, payload] = row as unknown as [Digest, string, number, Buffer | null]
  return { digest: found, mediaType, size, payload: payload ?? undefined }
}

const children = `, children as (
    insert into manifest_children (repository_id, manifest_digest, child_digest)
    select m.repository_id, m.digest, c from manifest m, unnest(string_to_array($11::text, ' ')) as c
    on conflict do nothing
  )`

const inserting = (children: string) => `
  with made as (
    insert into repositories (name)
    select $1 where not exists (select from repositories where name = $1)
    on conflict do nothing returning id
  ), repository as (
    select id from made union all select id from repositories where name = $1
  ), manifest as (
    insert into manifests
      (repository_id, digest, media_type, artifact_type, subject_digest, annotations, size, payload)
    select id, $2, $3, $4, $5, $6::text::jsonb, octet_length($7::bytea), $7 from repository
    on conflict (repository_id, digest) do update set
      pushed_at = excluded.pushed_at, payload = excluded.payload, size = excluded.size
      where manifests.media_type = excluded.media_type
    returning repository_id, digest
  ), blobs as (
    insert into manifest_blobs (repository_id, manifest_digest, blob_digest)
    select m.repository_id, m.digest, b from manifest m, unnest(string_to_array($8::text, ' ')) as b
    order by b
    on conflict do nothing
  ), tagged as (
    insert into tags (repository_id, name, manifest_digest)
    select m.repository_id, t, m.digest from manifest m, unnest(string_to_array($9::text, ' ')) as t
    order by t
    on conflict (repository_id, name) do update
      set manifest_digest = excluded.manifest_digest, updated_at = excluded.updated_at
      where $10 or tags.manifest_digest = excluded.manifest_digest
  )${children}
  select 1 from manifest`

/** Made once, as in db/blobs.ts. Most manifests have no children, and a part that does nothing costs the server as much. */
const [insertion, insertionOfIndex] = [inserting(''), inserting(children)]

/**
 * Stores a manifest with its edges and tags in one statement, so all of it is visible at once or nothing.
 * Answers `stored`; or `conflict` where these bytes are there under another media type, or a row came or went in the
 * same moment (the caller looks which).
 * `mayMove`: whether a tag that names something else is moved; else it is locked, and left as it is.
 * Throws PostgreSQL's foreign key violation on `manifest_blobs` where a blob is not linked to the repository.
 */
export async function insertManifest(
  sql: Sql | Transaction,
  repository: RepositoryName,
  digest: Digest,
  { mediaType, artifactType, subject, annotations, blobs, children }: Manifest,
  payload: Buffer,
  tags: readonly Tag[],
  { mayMove = true } = {},
): Promise<'stored' | 'conflict'> {
  const facts = [repository, digest, mediaType, artifactType ?? null, subject ?? null]
  const bytes = [annotations ? JSON.stringify(annotations) : null, payload]
  const edges = [blobs.join(' '), tags.join(' '), mayMove]
  const rows = await (children.length === 0
    ? sql.unsafe(insertion, [...facts, ...bytes, ...edges], { prepare: true })
    : sql.unsafe(insertionOfIndex, [...facts, ...bytes, ...edges, children.join(' ')], { prepare: true }))
  return rows.length > 0 ? 'stored' : 'conflict'
}

/** Which of these blobs are not linked to the repository. */
export async function missingBlobs(
  sql: Sql | Transaction,
  repository: RepositoryName,
  blobs: readonly Digest[],
): Promise<Digest[]> {
  const rows = await sql<{ digest: Digest }[]>`
    select b as digest from unnest(${blobs as readonly string[]}::text[]) as b
    where not exists (
      select from repository_blobs l
      where l.repository_id = (select id from repositories where name = ${repository}) and l.digest = b)`
  return rows.map((row) => row.digest)
}

/**
 * Deletes a manifest, its tags, and the untagged referrers that hang on it (signatures and the like), at any depth.
 * What they held is reviewed after the grace. Answers the digests that are gone, none where there was no such manifest.
 *
 * Two statements. The first locks the manifests, so that none of them gets another edge; the second sees every edge.
 */
export async function deleteManifest(
  tx: Transaction,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
  graceSeconds: number,
): Promise<Digest[]> {
  await tx`
    with recursive ${doomedBy(tx, repository, digest)}
    select from manifests m join doomed d on d.repository_id = m.repository_id and d.digest = m.digest
    order by m.digest for update of m`
  const rows = await tx<{ digest: Digest }[]>`
    with recursive ${doomedBy(tx, repository, digest)}, ${reviewOfDoomed(tx, graceSeconds)}
    delete from manifests m using doomed d
    where m.repository_id = d.repository_id and m.digest = d.digest
    returning m.digest`
  return rows.map((row) => row.digest)
}

/** A manifest and its untagged referrers, as `doomed`: a part of a recursive statement. */
function doomedBy(tx: Transaction, repository: RepositoryName, digest: Digest): Fragment {
  return tx`doomed (repository_id, digest) as (
      select m.repository_id, m.digest from manifests m
      where m.repository_id = (select id from repositories where name = ${repository}) and m.digest = ${digest}
      union
      select m.repository_id, m.digest from doomed d
      join manifests m on m.repository_id = d.repository_id and m.subject_digest = d.digest
      where not exists (
        select from tags t where t.repository_id = m.repository_id and t.manifest_digest = m.digest)
    )`
}

/**
 * Has the links that the manifests in `doomed` need looked at after the grace: a part of the statement that deletes
 * them. They are locked in the order of their digests, as those who push do.
 */
export function reviewOfDoomed(tx: Transaction, graceSeconds: number): Fragment {
  return tx`freed as (
      select l.repository_id, l.digest from repository_blobs l
      where (l.repository_id, l.digest) in (
        select e.repository_id, e.blob_digest from doomed d
        join manifest_blobs e on e.repository_id = d.repository_id and e.manifest_digest = d.digest)
      order by l.repository_id, l.digest for no key update
    ), review as (
      update repository_blobs l set review_at = now() + make_interval(secs => ${graceSeconds})
      from freed f where l.repository_id = f.repository_id and l.digest = f.digest
    )`
}
