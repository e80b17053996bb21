import { ask, type Transaction } from '../db/client.ts'
import {
  factsOf,
  lastMove,
  type PackFacts,
  packFacts,
  packRepositories,
  setUpdatedAt,
  storedFacts,
  type VersionFacts,
  type VersionTag,
  versionTagDigests,
  versionTags,
  writeFacts,
} from '../db/pack-rebuild.ts'
import { buryVersion, lockPack, refreshPack } from '../db/packs.ts'
import { setTag } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { type PackId, packIdOf } from '../packs/pack.ts'
import { tagOf, type Version, versionOfTag } from '../packs/version.ts'
import { readVersion } from './packs.ts'

// Everything the facade says of packs follows from the manifests under packs/, so it can be made again from them: rows
// of packs, versions and dependencies, what lists show, the tag `latest`. What a person said (state, message) and the
// numbers of deleted versions follow from nothing: they stay where their rows are there.
//
// Beside a running server: a pack's manifests are read first, without a lock, for they never change. Then, under the
// pack's lock, its tags are looked at again; what was published since then has its rows from its own transaction.

/** What was found to differ in a pack, and set right. */
export type PackChange = {
  packId: PackId
  added: Version[]
  changed: { version: Version; fields: string[] }[]
  /** Rows without a tag: such a version counts as deleted, its number as spent. */
  removed: Version[]
  /** Tags that named another manifest than their version is. */
  retagged: Version[]
  /** What lists show, or the tag `latest`. */
  shown: string[]
}

/** A tag that looks like a version whose manifest breaks the rules, and why. Its rows, if it has any, stay. */
export type LeftOut = { repository: RepositoryName; tag: Tag | undefined; reason: string }

/** What became of a repository under packs/. */
export type Rebuilt = { change: PackChange | undefined; leftOut: LeftOut[] }

const repositoriesAtOnce = 500
/** Each may have a manifest of 4 MiB. */
const tagsAtOnce = 16

/**
 * Rebuilds pack after pack; answers one after the other what was done. With `dryRun`, what would be done.
 * Throws UNAVAILABLE where the database or the store does not answer; what was answered before that is done.
 */
export async function* rebuildPacks(deps: Deps, { dryRun }: { dryRun: boolean }): AsyncGenerator<Rebuilt> {
  let last = ''
  for (;;) {
    const page = await ask(deps.db, (sql) => packRepositories(sql, { last, limit: repositoriesAtOnce }))
    for (const repository of page) yield await rebuildPack(deps, repository, dryRun)
    last = page.at(-1) ?? ''
    if (page.length < repositoriesAtOnce) return
  }
}

async function rebuildPack(deps: Deps, repository: RepositoryName, dryRun: boolean): Promise<Rebuilt> {
  const packId = packIdOf(repository)
  if (!packId) {
    const reason = 'under packs/ stands the id of a pack, and nothing below it'
    return { change: undefined, leftOut: [{ repository, tag: undefined, reason }] }
  }
  const { found, leftOut } = await readTags(deps, repository, packId)
  let change: PackChange | undefined
  try {
    await ask(deps.db, (sql) =>
      sql.begin(async (tx) => {
        change = await setRight(tx, { repository, packId, found, leftOut })
        if (!change || dryRun) throw new TakeBack()
      }),
    )
  } catch (error) {
    if (!(error instanceof TakeBack)) throw error
  }
  return { change, leftOut }
}

/** Ends a transaction whose changes are not wanted. */
class TakeBack extends Error {}

type Found = { tag: Tag; digest: Digest; facts: VersionFacts; publishedAt: string }

/** The versions that the tags of a repository name, the first published first; and the tags that break the rules. */
async function readTags(
  deps: Deps,
  repository: RepositoryName,
  packId: PackId,
): Promise<{ found: Found[]; leftOut: LeftOut[] }> {
  const found: Found[] = []
  const leftOut: LeftOut[] = []
  let last = ''
  for (;;) {
    const page = await ask(deps.db, (sql) => versionTags(sql, repository, { last, limit: tagsAtOnce }))
    const read = await Promise.all(page.map((tag) => readTag(deps, repository, packId, tag)))
    for (const entry of read)
      if ('facts' in entry) found.push(entry)
      else leftOut.push(entry)
    last = page.at(-1)?.tag ?? ''
    if (page.length < tagsAtOnce) break
  }
  found.sort((a, b) => (a.publishedAt < b.publishedAt ? -1 : 1))
  return { found, leftOut }
}

async function readTag(
  deps: Deps,
  repository: RepositoryName,
  packId: PackId,
  { tag, digest, mediaType, payload, publishedAt }: VersionTag,
): Promise<Found | LeftOut> {
  const version = versionOfTag(tag)
  if (!version) return { repository, tag, reason: 'looks like a version, but is none by Semantic Versioning 2.0' }
  try {
    const manifest = parseManifest(payload, mediaType)
    const read = await readVersion(deps, { repository, bytes: payload }, digest, manifest, packId, version)
    const facts = factsOf({ document: read.artifact.document, manifestDigest: digest, content: read.content })
    return { tag, digest, facts, publishedAt }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    // Either the store is down, which ends all of this, or this one blob is damaged.
    if (error.key === 'UNAVAILABLE') await deps.blobs.ping()
    const cause = error.cause instanceof Error ? error.cause.message : JSON.stringify(error.detail ?? '')
    const words = typeof error.detail === 'string' ? error.detail : `${error.message}: ${cause}`
    return { repository, tag, reason: words }
  }
}

type Read = { repository: RepositoryName; packId: PackId; found: readonly Found[]; leftOut: LeftOut[] }

/** Brings a pack's rows to what was read. Undefined where they say so already. Adds to `leftOut`. */
async function setRight(
  tx: Transaction,
  { repository, packId, found, leftOut }: Read,
): Promise<PackChange | undefined> {
  const before = await packFacts(tx, packId)
  if (!before && found.length === 0) return undefined
  await lockPack(tx, packId, repository)
  const tags = await versionTagDigests(tx, repository)
  const stored = await storedFacts(tx, packId)
  const living = new Map(stored.living.map((facts) => [facts.version, facts]))
  const retagged = await setTagsRight(tx, repository, stored.living, tags)
  for (const version of retagged) {
    const place = leftOut.findIndex(({ tag }) => tag === tagOf(version))
    if (place >= 0) leftOut.splice(place, 1)
  }
  const current = found.filter(({ tag, digest }) => tags.get(tag) === digest)
  const wanted = oneOfEachRelease(current, living, new Set(stored.deleted), repository, leftOut)
  const removed = stored.living.map((facts) => facts.version).filter((version) => !tags.has(tagOf(version)))

  const differing = wanted.map((entry) => ({
    ...entry,
    fields: differences(living.get(entry.facts.version), entry.facts),
  }))
  const write = differing.filter(({ fields }) => fields.length > 0)
  for (const version of removed) await buryVersion(tx, packId, version)
  if (write.length > 0)
    await writeFacts(
      tx,
      packId,
      write.map(({ facts, publishedAt }) => ({ ...facts, publishedAt })),
    )
  const updatedAt = before?.updatedAt ?? (await lastMove(tx, repository))
  await refreshPack(tx, packId)
  const shown = await shownDifferences(tx, packId, before)
  if (write.length + removed.length + retagged.length + shown.length === 0) return undefined
  if (updatedAt) await setUpdatedAt(tx, packId, updatedAt)
  return {
    packId,
    added: write.filter(({ facts }) => !living.has(facts.version)).map(({ facts }) => facts.version),
    changed: write
      .filter(({ facts }) => living.has(facts.version))
      .map(({ facts, fields }) => ({ version: facts.version, fields })),
    removed,
    retagged,
    shown,
  }
}

/** A version is the manifest that it was published with: a tag that names another one goes back. Adds to `tags`. */
async function setTagsRight(
  tx: Transaction,
  repository: RepositoryName,
  living: readonly VersionFacts[],
  tags: Map<Tag, Digest>,
): Promise<Version[]> {
  const wrong = living.filter(({ version, manifest }) => (tags.get(tagOf(version)) ?? manifest) !== manifest)
  for (const { version, manifest } of wrong) {
    await setTag(tx, repository, tagOf(version), manifest)
    tags.set(tagOf(version), manifest)
  }
  return wrong.map(({ version }) => version)
}

/** Versions that differ in their build part are one release: the one that has a row counts, else the first published. */
function oneOfEachRelease(
  found: readonly Found[],
  living: ReadonlyMap<Version, VersionFacts>,
  deleted: ReadonlySet<Version>,
  repository: RepositoryName,
  leftOut: LeftOut[],
): Found[] {
  const holders = new Map<string, Version>()
  for (const { version, release } of living.values()) holders.set(release, version)
  const spent = new Set([...deleted].map((version) => version.split('+', 1)[0]))
  return found.filter(({ tag, facts: { release, version } }) => {
    if (!holders.has(release)) holders.set(release, version)
    const holder = holders.get(release)
    if (!spent.has(release) && holder === version) return true
    const reason = spent.has(release)
      ? `${release} was deleted, and the number of a version is never used again`
      : `is the same release as ${holder}, and a build part makes no other version`
    leftOut.push({ repository, tag, reason })
    return false
  })
}

function differences(stored: VersionFacts | undefined, wanted: VersionFacts): string[] {
  return Object.entries(wanted)
    .filter(([key, value]) => stored?.[key as keyof VersionFacts] !== value)
    .map(([key]) => key)
}

async function shownDifferences(tx: Transaction, packId: PackId, before: PackFacts | undefined): Promise<string[]> {
  const after = await packFacts(tx, packId)
  return Object.entries(after ?? {})
    .filter(([key, value]) => key !== 'updatedAt' && before?.[key as keyof PackFacts] !== value)
    .map(([key]) => key)
}
