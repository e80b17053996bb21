import { ask, type Transaction } from '../db/client.ts'
import { type TagNow, tagsNow } from '../db/import-publish.ts'
import { findRelease, lockPack, versionsOfManifest } from '../db/packs.ts'
import { lockTag, setTag } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { goesBack, roleOf } from '../packs/channel.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { compareVersions, type Version } from '../packs/version.ts'

// A channel never goes back by accident: whoever moves it holds the lock of its pack, looks at what it names, and is
// refused where that is a newer version. A person may ask for it on purpose, with a reason, by PUT .../channels; a push
// of a tag has no way to say so. Imports have the same rule for all their channels at once (import-rules.ts).

/** Where channels point before they are moved. Under the pack's lock. */
export function channelsNow(tx: Transaction, packId: PackId, channels: readonly Tag[]): Promise<TagNow[]> {
  return tagsNow(
    tx,
    channels.map((tag) => ({ packId, tag })),
  )
}

/** Throws CHANNEL_BACKWARDS where one of these channels named a newer version than the manifest is that it is to name. */
export async function requireForward(
  tx: Transaction,
  packId: PackId,
  before: readonly TagNow[],
  digest: Digest,
): Promise<void> {
  const moved = before.filter((channel) => channel.digest !== digest)
  if (moved.length === 0) return
  const [version] = (await versionsOfManifest(tx, packId, digest)).sort((a, b) => compareVersions(b, a))
  const back = moved.find((channel) => version !== undefined && goesBack(channel.version, version))
  if (!back) return
  throw new Failure('CHANNEL_BACKWARDS', {
    detail:
      `${back.tag} of ${packId} names ${back.version}, which is newer than ${version}, and a channel does not go back by ` +
      `accident. If that is meant: PUT /packs/${packId}/channels/${back.tag}?allowOlder=true&reason=… with {"version":"${version}"}, ` +
      `or packs channel set ${packId} ${back.tag} ${version} --allow-older --reason "…"`,
    about: { channel: back.tag, from: back.version, to: version },
  })
}

/** `ifMatch`: the digest it must point at now. `allowOlder`: it may go back to an older version. */
export type ChannelMove = { ifMatch: Digest | undefined; allowOlder: boolean }

/**
 * Points a channel at a published version; answers the version's manifest.
 * Throws TAG_INVALID, CHANNEL_INVALID for `latest`, VERSION_UNKNOWN, PRECONDITION_FAILED, CHANNEL_BACKWARDS.
 */
export function setChannel(
  deps: Deps,
  packId: PackId,
  channel: string,
  version: Version,
  { ifMatch, allowOlder }: ChannelMove,
): Promise<Digest> {
  const tag = channelNamed(channel)
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
      if (!allowOlder) await requireForward(tx, packId, await channelsNow(tx, packId, [tag]), found.manifestDigest)
      await setTag(tx, repository, tag, found.manifestDigest)
      return found.manifestDigest
    }),
  )
}

/** Throws TAG_INVALID, and CHANNEL_INVALID for `latest`. */
function channelNamed(text: string): Tag {
  const tag = parseTag(text)
  const role = tag && roleOf(tag)
  if (role?.kind === 'latest')
    throw new Failure('CHANNEL_INVALID', {
      detail: 'latest is kept by the registry: it names the highest stable version that is not yanked',
    })
  if (tag && role?.kind === 'channel') return tag
  throw new Failure('TAG_INVALID', {
    detail: `${JSON.stringify(text.slice(0, 200))} is not the name of a channel: letters, digits, ".", "_" and "-", and nothing that looks like a version`,
  })
}
