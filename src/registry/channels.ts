import { ask, type Transaction } from '../db/client.ts'
import { recordEvents } from '../db/events.ts'
import { findRelease, lockPack } from '../db/packs.ts'
import { lockTag, setTag, type TagNow, tagsNow } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { goesBack, roleOf } from '../packs/channel.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { channelMoved } from './pack-events.ts'

// A channel never goes back by accident: whoever moves it holds the lock of its pack, and looks at what it names before
// and after. Where that is an older version then, all of it is undone. A person may ask for it on purpose, with a reason,
// by PUT .../channels; a push of a tag has no way to say so. Imports look at all their channels before they move one
// (import-rules.ts), for they tell everything that is in their way at once.

type Channel = { packId: PackId; tag: Tag }

/**
 * Does what moves channels, and tells of those that did move. Under the locks of their packs, in a transaction that is
 * undone where it throws: CHANNEL_BACKWARDS, unless `allowOlder`.
 */
export async function movingChannels<T>(
  tx: Transaction,
  channels: readonly Channel[],
  move: () => Promise<T>,
  { allowOlder = false } = {},
): Promise<T> {
  if (channels.length === 0) return move()
  const before = byChannel(await tagsNow(tx, channels))
  const result = await move()
  const after = byChannel(await tagsNow(tx, channels))
  const moved = channels.flatMap((channel) => {
    const [from, to] = [before.get(placeOf(channel)), after.get(placeOf(channel))]
    // What names no version, before or after, is no channel: a signature that somebody gave a name.
    if (from?.digest === to?.digest || !(from?.version || to?.version)) return []
    return [{ ...channel, from, to }]
  })
  for (const { packId, tag, from, to } of moved)
    if (!allowOlder && from?.version && to?.version && goesBack(from.version, to.version))
      throw backwards({ packId, tag }, from.version, to.version)
  await recordEvents(
    tx,
    moved.map(({ packId, tag, from, to }) =>
      channelMoved(packId, tag, { from: from?.version, to: to?.version, manifestDigest: to?.digest }),
    ),
  )
  return result
}

function byChannel(tags: readonly TagNow[]): Map<string, TagNow> {
  return new Map(tags.map((tag) => [placeOf(tag), tag]))
}

function placeOf({ packId, tag }: Channel): string {
  return `${packId}@${tag}`
}

function backwards({ packId, tag }: Channel, from: Version, to: Version): Failure {
  return new Failure('CHANNEL_BACKWARDS', {
    detail:
      `${tag} of ${packId} names ${from}, which is newer than ${to}, and a channel does not go back by accident. If that ` +
      `is meant: PUT /packs/${packId}/channels/${tag}?allowOlder=true&reason=… with {"version":"${to}"}, or ` +
      `packs channel set ${packId} ${tag} ${to} --allow-older --reason "…"`,
    about: { channel: tag, from, to },
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
      const { manifestDigest } = found
      await movingChannels(tx, [{ packId, tag }], () => setTag(tx, repository, tag, manifestDigest), { allowOlder })
      return manifestDigest
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
