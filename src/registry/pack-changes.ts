import { ask } from '../db/client.ts'
import { recordEvents } from '../db/events.ts'
import { findRelease, lockPack, refreshPack, setState } from '../db/packs.ts'
import { lockTag, setTag } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseTag } from '../oci/reference.ts'
import { roleOf } from '../packs/channel.ts'
import { type PackId, type PackState, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { movingChannels, stateChanged } from './pack-events.ts'

type StateChange = { state: PackState; message?: string | undefined; replacedBy?: string | undefined }

/** Says of a version that it is active, deprecated or yanked. Throws VERSION_UNKNOWN. */
export async function changeState(deps: Deps, packId: PackId, version: Version, change: StateChange): Promise<void> {
  const { state, message, replacedBy } = change
  const changed = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await findRelease(tx, packId, version))?.manifestDigest) return false
      await lockPack(tx, packId, repositoryOf(packId))
      const found = await setState(tx, { packId, version, state, message, replacedBy })
      if (!found) return false
      if (found.changed)
        await recordEvents(tx, [stateChanged(packId, version, { from: found.before, state, message, replacedBy })])
      await refreshPack(tx, packId)
      return true
    }),
  )
  if (!changed) throw new Failure('VERSION_UNKNOWN', { detail: `${packId} has no version ${version}` })
}

/**
 * Points a channel at a published version; answers the version's manifest. `ifMatch`: the digest it must point at now.
 * Throws TAG_INVALID, CHANNEL_INVALID for `latest`, VERSION_UNKNOWN, PRECONDITION_FAILED.
 */
export function setChannel(
  deps: Deps,
  packId: PackId,
  channel: string,
  version: Version,
  ifMatch: Digest | undefined,
): Promise<Digest> {
  const tag = parseTag(channel)
  const role = tag && roleOf(tag)
  if (role?.kind === 'latest')
    throw new Failure('CHANNEL_INVALID', {
      detail: 'latest is kept by the registry: it names the highest stable version that is not yanked',
    })
  if (!tag || role?.kind !== 'channel')
    throw new Failure('TAG_INVALID', {
      detail: `${JSON.stringify(channel.slice(0, 200))} is not the name of a channel: letters, digits, ".", "_" and "-", and nothing that looks like a version`,
    })
  const repository = repositoryOf(packId)
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const published = (await findRelease(tx, packId, version))?.manifestDigest
      if (published) await lockPack(tx, packId, repository)
      const found = published && (await findRelease(tx, packId, version))
      if (!found?.manifestDigest || found.version !== version)
        throw new Failure('VERSION_UNKNOWN', {
          detail: `${packId} has no version ${version}; a channel points at a published one`,
        })
      if (ifMatch !== undefined && (await lockTag(tx, repository, tag)) !== ifMatch)
        throw new Failure('PRECONDITION_FAILED', {
          detail: `${channel} does not point at ${ifMatch} any more; look again`,
        })
      const { manifestDigest } = found
      await movingChannels(tx, [{ packId, tag }], () => setTag(tx, repository, tag, manifestDigest))
      return found.manifestDigest
    }),
  )
}
