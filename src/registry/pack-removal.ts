import { ask, askRead, type Transaction } from '../db/client.ts'
import { closureManifests, deleteUnnamed, lockManifests } from '../db/closures.ts'
import { recordEvents } from '../db/events.ts'
import { deleteManifest } from '../db/manifests.ts'
import {
  buryVersion,
  channelsOfManifest,
  findRelease,
  lockDependencies,
  lockPack,
  refreshPack,
  versionsOfManifest,
} from '../db/packs.ts'
import { deleteTag, tagsNow } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Reference, Tag } from '../oci/reference.ts'
import { roleOf } from '../packs/channel.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { tagOf, type Version } from '../packs/version.ts'
import { movingChannels } from './channels.ts'
import { firstDependents } from './dependents.ts'
import { requireNotHeld } from './holds.ts'
import { channelMoved, deleted } from './pack-events.ts'
import type { MayPull } from './resolve.ts'

// What goes from the repository of a pack goes by these rules, whoever asks and by whichever door. Locks: see packs.ts.

/**
 * Deletes by the rules of packs what a reference names. False where it is none of their matter: a manifest that is no
 * version, or a tag that belongs to another manifest. Throws as `deleteVersion` does, and CHANNEL_INVALID for `latest`.
 */
export async function removeFromPack(
  deps: Deps,
  packId: PackId,
  { tag, digest }: Reference,
  mayPull?: MayPull,
): Promise<boolean> {
  if (digest !== undefined) {
    const versions = await askRead(deps.db, (sql) => versionsOfManifest(sql, packId, digest))
    return versions.length > 0 && deleteVersions(deps, packId, versions, { mayPull })
  }
  const role = roleOf(tag)
  if (role.kind === 'latest')
    throw new Failure('CHANNEL_INVALID', {
      detail: 'latest is kept by the registry. Yank or delete the version instead',
    })
  if (role.kind === 'channel') return deleteChannel(deps, packId, role.name)
  return role.kind === 'version' && deleteVersion(deps, packId, role.version, { mayPull })
}

/** Whether a tag that has just been deleted is a channel, or names a living version: it goes by the rules then. */
export async function belongsToPack(tx: Transaction, packId: PackId, tag: Tag): Promise<boolean> {
  const role = roleOf(tag)
  if (role.kind !== 'version') return role.kind === 'channel'
  const release = await findRelease(tx, packId, role.version)
  return release?.version === role.version && release.manifestDigest !== null
}

type Deletion = { force?: boolean; mayPull?: MayPull | undefined }

/**
 * Deletes a version for good: its number is spent. Its manifest goes with it, with signatures and channels that point
 * at it, unless another version is the same manifest. False where there was no such version.
 * Throws VERSION_HELD; DEPENDENTS_EXIST with the first of them where living versions of other packs accept it, unless `force`.
 */
export function deleteVersion(deps: Deps, packId: PackId, version: Version, options: Deletion = {}): Promise<boolean> {
  return deleteVersions(deps, packId, [version], options)
}

/** All of them, or none; false where none of them was there. */
function deleteVersions(
  deps: Deps,
  packId: PackId,
  versions: readonly Version[],
  { force = false, mayPull = () => true }: Deletion,
): Promise<boolean> {
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const there: Version[] = []
      for (const version of versions) if ((await findRelease(tx, packId, version))?.manifestDigest) there.push(version)
      if (there.length === 0) return false
      await lockForDeletion(tx, packId)
      await requireNotHeld(tx, packId, there)
      let any = false
      for (const version of there) {
        if (!force) await requireNoDependents(tx, packId, version, mayPull)
        if (await removeVersion(deps, tx, packId, version)) any = true
      }
      return any
    }),
  )
}

/** Takes the locks under which versions of a pack are deleted: from here on nobody comes to depend on one. */
export async function lockForDeletion(tx: Transaction, packId: PackId): Promise<void> {
  await lockPack(tx, packId, repositoryOf(packId))
  await lockDependencies(tx)
}

/** Deletes a version that may go, under those locks; answers its manifest, undefined where there was no such version. */
export async function removeVersion(
  deps: Deps,
  tx: Transaction,
  packId: PackId,
  version: Version,
): Promise<Digest | undefined> {
  const repository = repositoryOf(packId)
  const digest = await buryVersion(tx, packId, version)
  if (!digest) return undefined
  const events = [deleted(packId, version, digest)]
  if ((await versionsOfManifest(tx, packId, digest)).length > 0) await deleteTag(tx, repository, tagOf(version))
  else {
    for (const channel of await channelsOfManifest(tx, packId, digest))
      events.push(channelMoved(packId, channel, { from: version }))
    await deleteWhole(tx, repository, digest, deps.config.gcGraceSeconds)
    // It went with its manifest, unless it named another one: that was possible before there was a rule.
    await deleteTag(tx, repository, tagOf(version))
  }
  await recordEvents(tx, events)
  await refreshPack(tx, packId)
  return digest
}

/** False where there is no such channel. */
async function deleteChannel(deps: Deps, packId: PackId, channel: Tag): Promise<boolean> {
  const repository = repositoryOf(packId)
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if ((await tagsNow(tx, [{ packId, tag: channel }])).length === 0) return false
      await lockPack(tx, packId, repository)
      return movingChannels(tx, [{ packId, tag: channel }], () => deleteTag(tx, repository, channel))
    }),
  )
}

/** Deletes a manifest, and of what it lists (the members of a bundle) that which nothing else names. */
async function deleteWhole(
  tx: Transaction,
  repository: RepositoryName,
  digest: Digest,
  graceSeconds: number,
): Promise<void> {
  const listed = await closureManifests(tx, repository, [digest])
  await lockManifests(
    tx,
    repository,
    listed.map((manifest) => manifest.digest),
  )
  await deleteManifest(tx, { repository, digest }, graceSeconds)
  const left = listed.map((manifest) => manifest.digest).filter((other) => other !== digest)
  // Level by level: what an index listed is unnamed when the index has gone.
  for (let deleted = left.length; deleted > 0; ) deleted = await deleteUnnamed(tx, repository, left, graceSeconds)
}

/** As many as a refusal lists, and as it names in words. */
const mostListed = 20
const mostNamed = 5

async function requireNoDependents(tx: Transaction, packId: PackId, version: Version, mayPull: MayPull): Promise<void> {
  const { count, listed } = await firstDependents(tx, { packId, version }, { most: mostListed, mayList: mayPull })
  if (count === 0) return
  const names = listed.slice(0, mostNamed).map((entry) => `${entry.packId} ${entry.version}`)
  const left = count - names.length
  const more = left === 0 ? [] : [names.length === 0 ? 'packs that you may not read' : `${left} more`]
  throw new Failure('DEPENDENTS_EXIST', {
    detail: `${[names.join(', '), ...more].filter(Boolean).join(' and ')} may use ${packId} ${version}. Yank it instead (PATCH with {"state":"yanked"}), or delete it with ?force=true`,
    about: { dependents: listed, more: count - listed.length },
  })
}
