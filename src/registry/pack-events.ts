import type { NewEvent } from '../db/events.ts'
import type { Digest } from '../oci/digest.ts'
import type { PackId, PackState, PackType } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'

// What is told of packs, in the transaction and under the lock of whoever changes them. That `latest` moves is told by
// `refreshPacks`, which moves it.

type PublishedVersion = {
  packId: PackId
  version: Version
  type: PackType
  manifestDigest: Digest
  content: { digest: Digest; size: number; mediaType: string }
}

export function published({ packId, version, type, manifestDigest, content }: PublishedVersion): NewEvent {
  const { digest, size, mediaType } = content
  const data = { packId, version, type, digest, size, mediaType, manifestDigest }
  return { type: 'pack.published', packId, subject: `${packId}@${version}`, data }
}

export function deleted(packId: PackId, version: Version, manifestDigest: Digest): NewEvent {
  return {
    type: 'pack.deleted',
    packId,
    subject: `${packId}@${version}`,
    data: { packId, version, manifestDigest },
  }
}

export function stateChanged(
  packId: PackId,
  version: Version,
  change: { from: PackState; state: PackState; message?: string | undefined; replacedBy?: string | undefined },
): NewEvent {
  const data = { packId, version, ...change }
  return { type: 'pack.state-changed', packId, subject: `${packId}@${version}`, data }
}

type Move = { from?: Version | null | undefined; to?: Version | null | undefined; manifestDigest?: Digest | undefined }

/** `to` is missing where the channel is gone. */
export function channelMoved(packId: PackId, channel: string, { from, to, manifestDigest }: Move): NewEvent {
  const data = {
    packId,
    channel,
    from: from ?? undefined,
    to: to ?? undefined,
    manifestDigest,
  }
  return { type: 'channel.moved', packId, subject: `${packId}@${channel}`, data }
}
