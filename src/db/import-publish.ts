import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Manifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { PackId } from '../packs/pack.ts'
import { releaseOf, type Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'
import { healBlobs } from './damage.ts'
import type { VersionFacts } from './pack-rebuild.ts'

// What an import asks and writes: sets of rows, each statement for a thousand packs what the others do for one. Rows are
// inserted in the order of their keys, as everywhere, so that two writers never wait for each other.

/** An import may write very many rows; the longest that publishing it may take, in milliseconds. */
export const publishMs = 10 * 60 * 1000

/** What became of releases. `manifestDigest` is null where it was deleted. */
export type ReleaseNow = { packId: PackId; release: string; version: Version; manifestDigest: Digest | null }

export async function releasesNow(
  sql: Sql | Transaction,
  wanted: readonly { packId: PackId; version: Version }[],
): Promise<ReleaseNow[]> {
  const rows = await sql<ReleaseNow[]>`
    select p.pack_id as "packId", found.*
    from unnest(${wanted.map((w) => w.packId as string)}::text[], ${wanted.map((w) => releaseOf(w.version) as string)}::text[])
      as w (pack_id, release)
    join packs p on p.pack_id = w.pack_id,
    -- One by one, along the primary key: left to join as it likes, the planner may begin with all that are 1.0.0.
    lateral (
      select v.release, v.version, v.manifest_digest as "manifestDigest" from pack_versions v
      where v.repository_id = p.repository_id and v.release = w.release limit 1
    ) found`
  return [...rows]
}

/** Takes the locks of packs, in the order of their ids; see lockPack. Repositories and packs come into being with it. */
export async function lockPacks(
  tx: Transaction,
  packs: readonly { packId: PackId; repository: RepositoryName }[],
): Promise<void> {
  const names = packs.map(({ repository }) => repository as string)
  await tx`
    insert into repositories (name)
    select n from unnest(${names}::text[]) as n
    where not exists (select from repositories r where r.name = n)
    order by n collate "C" on conflict do nothing`
  await tx`
    insert into packs (repository_id, pack_id)
    select r.id, w.pack_id from unnest(${packs.map(({ packId }) => packId as string)}::text[], ${names}::text[]) as w (pack_id, name)
    join repositories r on r.name = w.name
    order by w.pack_id collate "C" on conflict do nothing`
  await tx`
    select from packs where pack_id = any(${packs.map(({ packId }) => packId as string)}::text[])
    order by pack_id for no key update`
}

/** An object that an import has stored. */
type StoredBlob = { digest: Digest; size: number; key: ObjectKey }

/** Takes stored objects out of an import: they are to become content. Those that are there no more are left out. */
export async function takeBlobs(tx: Transaction, id: string, keys: readonly ObjectKey[]): Promise<StoredBlob[]> {
  const rows = await tx<{ digest: Digest; size: number; key: string }[]>`
    delete from import_blobs where import_id = ${id} and storage_key = any(${keys as readonly string[]}::text[])
    returning digest, size, storage_key as key`
  return rows.map(({ digest, size, key }) => ({ digest, size, key: storedKey(key) }))
}

/**
 * Makes objects the registry's content. Answers those of them that nobody needs, because the same came from elsewhere in
 * the meantime; damaged content is healed by them. `on conflict do update`: see linkArrivals.
 */
export async function enterBlobs(tx: Transaction, blobs: readonly StoredBlob[]): Promise<ObjectKey[]> {
  const rows = await tx<{ digest: Digest; key: string; damaged: boolean }[]>`
    insert into blobs (digest, size, storage_key, verified_at)
    select g.digest, g.size, g.key, now()
    from unnest(${blobs.map(({ digest }) => digest as string)}::text[], ${blobs.map(({ size }) => size)}::bigint[],
      ${blobs.map(({ key }) => key as string)}::text[]) as g (digest, size, key)
    order by g.digest collate "C"
    on conflict (digest) do update set verified_at = blobs.verified_at
    returning digest, storage_key as key, damaged_at is not null as damaged`
  const damaged = new Set(rows.filter((row) => row.damaged).map(({ digest }) => digest))
  const healing = blobs.filter(({ digest }) => damaged.has(digest))
  if (healing.length > 0) await healBlobs(tx, healing)
  const live = new Set(rows.map(({ key }) => key))
  return blobs.filter(({ key, digest }) => !live.has(key) && !damaged.has(digest)).map(({ key }) => key)
}

/** A manifest in the repository of a pack. */
export type PlacedManifest = { packId: PackId; digest: Digest; manifest: Manifest; bytes: Buffer }

/** Links to the blobs that these need. Throws PostgreSQL's foreign key violation where one is not here. */
export async function linkBlobs(tx: Transaction, placed: readonly PlacedManifest[]): Promise<void> {
  const pairs = pairsOf(placed, ({ blobs }) => blobs)
  await tx`
    insert into repository_blobs (repository_id, digest)
    select distinct p.repository_id, w.blob collate "C"
    from unnest(${pairs.map(({ packId }) => packId as string)}::text[], ${pairs.map(({ other }) => other as string)}::text[]) as w (pack_id, blob)
    join packs p on p.pack_id = w.pack_id
    order by 1, 2
    on conflict do nothing`
  // One that was there may be due: it is locked against the collector until its edges are there too. Where the collector
  // was faster, it is gone, and placeEdges fails on `manifest_blobs_link`: the next try makes it anew.
  await tx`
    select from repository_blobs l
    where l.review_at is not null and (l.repository_id, l.digest) in (
      select p.repository_id, w.blob collate "C"
      from unnest(${pairs.map(({ packId }) => packId as string)}::text[], ${pairs.map(({ other }) => other as string)}::text[]) as w (pack_id, blob)
      join packs p on p.pack_id = w.pack_id)
    order by l.repository_id, l.digest for key share`
}

/** Stores manifests. Answers how many are new; those that are here are left as they are. */
export async function placeManifests(tx: Transaction, placed: readonly PlacedManifest[]): Promise<number> {
  const texts = (text: (placed: PlacedManifest) => string | null) => placed.map(text)
  const rows = await tx`
    insert into manifests
      (repository_id, digest, media_type, artifact_type, subject_digest, annotations, size, payload)
    select p.repository_id, w.digest, w.media_type, w.artifact_type, w.subject, w.annotations::jsonb, w.size,
      decode(w.payload, 'base64')
    from unnest(${texts(({ packId }) => packId)}::text[], ${texts(({ digest }) => digest)}::text[],
      ${texts(({ manifest }) => manifest.mediaType)}::text[], ${texts(({ manifest }) => manifest.artifactType ?? null)}::text[],
      ${texts(({ manifest }) => manifest.subject ?? null)}::text[],
      ${texts(({ manifest }) => (manifest.annotations ? JSON.stringify(manifest.annotations) : null))}::text[],
      ${placed.map(({ bytes }) => bytes.length)}::int[], ${texts(({ bytes }) => bytes.toString('base64'))}::text[])
      as w (pack_id, digest, media_type, artifact_type, subject, annotations, size, payload)
    join packs p on p.pack_id = w.pack_id
    order by p.repository_id, w.digest collate "C"
    on conflict do nothing
    returning 1`
  return rows.length
}

/** The edges of manifests to their blobs and members; the foreign keys keep the collector off. */
export async function placeEdges(tx: Transaction, placed: readonly PlacedManifest[]): Promise<void> {
  const blobs = pairsOf(placed, (manifest) => manifest.blobs)
  await tx`
    insert into manifest_blobs (repository_id, manifest_digest, blob_digest)
    select p.repository_id, w.digest, w.blob
    from unnest(${blobs.map(({ packId }) => packId as string)}::text[], ${blobs.map(({ digest }) => digest as string)}::text[],
      ${blobs.map(({ other }) => other as string)}::text[]) as w (pack_id, digest, blob)
    join packs p on p.pack_id = w.pack_id
    order by p.repository_id, w.blob collate "C", w.digest collate "C"
    on conflict do nothing`
  const children = pairsOf(placed, (manifest) => manifest.children)
  if (children.length === 0) return
  await tx`
    insert into manifest_children (repository_id, manifest_digest, child_digest)
    select p.repository_id, w.digest, w.child
    from unnest(${children.map(({ packId }) => packId as string)}::text[], ${children.map(({ digest }) => digest as string)}::text[],
      ${children.map(({ other }) => other as string)}::text[]) as w (pack_id, digest, child)
    join packs p on p.pack_id = w.pack_id
    order by p.repository_id, w.digest collate "C", w.child collate "C"
    on conflict do nothing`
}

function pairsOf(placed: readonly PlacedManifest[], others: (manifest: Manifest) => readonly Digest[]) {
  return placed.flatMap(({ packId, digest, manifest }) => others(manifest).map((other) => ({ packId, digest, other })))
}

/** Points tags at manifests. Answers how many moved or are new. */
export async function placeTags(
  tx: Transaction,
  tags: readonly { packId: PackId; tag: Tag; digest: Digest }[],
): Promise<number> {
  const rows = await tx`
    insert into tags (repository_id, name, manifest_digest)
    select p.repository_id, w.tag, w.digest
    from unnest(${tags.map(({ packId }) => packId as string)}::text[], ${tags.map(({ tag }) => tag as string)}::text[],
      ${tags.map(({ digest }) => digest as string)}::text[]) as w (pack_id, tag, digest)
    join packs p on p.pack_id = w.pack_id
    order by p.repository_id, w.tag collate "C"
    on conflict (repository_id, name) do update
      set manifest_digest = excluded.manifest_digest, updated_at = excluded.updated_at
      where tags.manifest_digest <> excluded.manifest_digest
    returning 1`
  return rows.length
}

/** Adds versions, of any packs. Answers how many; those whose release is there are left as they are. */
export async function placeVersions(
  tx: Transaction,
  versions: readonly (VersionFacts & { packId: PackId })[],
): Promise<number> {
  const texts = (key: keyof VersionFacts | 'packId') => versions.map((facts) => facts[key] as string | null)
  const [row] = await tx<{ count: number }[]>`
    with given as materialized (
      select * from unnest(${texts('packId')}::text[], ${texts('release')}::text[], ${texts('version')}::text[],
        ${texts('precedence')}::text[], ${texts('prerelease')}::text[]::boolean[], ${texts('type')}::text[],
        ${texts('document')}::text[], ${texts('manifest')}::text[], ${texts('content')}::text[],
        ${texts('size')}::text[]::bigint[], ${texts('mediaType')}::text[], ${texts('title')}::text[],
        ${texts('minRunner')}::text[], ${texts('maxRunner')}::text[], ${texts('needs')}::text[], ${texts('dependencies')}::text[])
        as f (pack_id, release, version, precedence, prerelease, type, document, manifest, content, size, content_type,
          title, min_runner, max_runner, needs, list)
    ), version as (
      insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document, manifest_digest,
        content_digest, content_size, content_type, content_title, min_runner, max_runner, dependencies)
      select p.repository_id, f.release, f.version, f.precedence, f.prerelease, f.type, f.document::json, f.manifest,
        f.content, f.size, f.content_type, f.title, f.min_runner, f.max_runner, f.needs
      from given f join packs p on p.pack_id = f.pack_id
      order by p.repository_id, f.release collate "C"
      on conflict do nothing
      returning repository_id, release
    ), dependency as (
      insert into pack_dependencies (repository_id, release, depends_on, range, optional)
      select v.repository_id, v.release, d->>0, d->>1, (d->>2)::boolean
      from version v join packs p on p.repository_id = v.repository_id
      join given f on f.pack_id = p.pack_id and f.release = v.release, json_array_elements(f.list::json) as d
    )
    select count(*)::int as count from version`
  return row?.count ?? 0
}

/** The import is done: its report stays, and what it has stored and nobody needed is thrown away. */
export async function finishImport(tx: Transaction, id: string, report: string, lifeSeconds: number): Promise<void> {
  await tx`
    with rest as (
      delete from import_blobs where import_id = ${id} returning storage_key
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from rest where storage_key is not null
      on conflict do nothing
    )
    update imports set state = 'published', report = ${report}::text::json, error = null, finished_at = now(),
      index_json = null, envelope = null, expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${id}`
}
