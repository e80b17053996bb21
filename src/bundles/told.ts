import { type Digest, digestOf } from '../oci/digest.ts'
import type { Survey } from './survey.ts'

/** What a file holds, for people and programs to read. `size`: bytes of the blobs; a pack's: of its content. */
export type Facts = {
  kind: 'bundle' | 'layout'
  index: Digest
  lock?: Digest
  base?: Digest
  leftOut: number
  blobs: number
  size: number
  packs: { packId: string; version: string; manifestDigest: Digest; size: number }[]
  channels: { packId: string; channel: string; manifestDigest: Digest }[]
  referrers: { digest: Digest; subject: Digest; artifactType?: string }[]
  /** What belongs to a manifest by its tag. */
  attachments: { packId: string; tag: string; digest: Digest; subject: Digest }[]
  images: { name?: string; digest: Digest; mediaType: string }[]
}

export function factsOf({ layout, contents, manifests, lock, leftOut }: Survey): Facts {
  const { isBundle, base, entries } = contents
  const facts: Facts = {
    ...{ kind: isBundle ? 'bundle' : 'layout', index: digestOf(layout.index) },
    ...(lock ? { lock: lock.digest } : {}),
    ...(base ? { base } : {}),
    ...{ leftOut: leftOut.length, blobs: layout.blobs, size: layout.size },
    ...{ packs: [], channels: [], referrers: [], attachments: [], images: [] },
  }
  const sizes = new Map(lock?.lock.packs.map((pack) => [pack.manifestDigest, pack.size]))
  for (const entry of entries) {
    const { digest, mediaType } = entry.descriptor
    const manifest = manifests.get(digest)
    const described = manifest && 'needs' in manifest ? manifest : undefined
    const artifactType = entry.descriptor.artifactType ?? described?.artifactType
    if (entry.kind === 'pack') {
      // As in a lock: the one layer; an index, which needs none, is its own content.
      const ownSize = described ? (described.needs.at(-1)?.size ?? entry.descriptor.size) : 0
      const size = sizes.get(digest) ?? ownSize
      facts.packs.push({ packId: entry.packId, version: entry.version, manifestDigest: digest, size })
    } else if (entry.kind === 'channel')
      facts.channels.push({ packId: entry.packId, channel: entry.channel, manifestDigest: digest })
    else if (entry.kind === 'referrer')
      facts.referrers.push({ digest, subject: entry.subject, ...(artifactType ? { artifactType } : {}) })
    else if (entry.kind === 'attachment')
      facts.attachments.push({ packId: entry.packId, tag: entry.tag, digest, subject: entry.subject })
    else if (entry.kind === 'image')
      facts.images.push({ ...(entry.name === undefined ? {} : { name: entry.name }), digest, mediaType })
  }
  return facts
}

type Named = { name: string; digest: Digest }
type Changed = { name: string; from: Digest; to: Digest }
type Sized = { digest: Digest; size: number }

/** What came, went and changed. `packs`: by `id@version`, channels by `id#channel`, what has another name by that. */
export type Differences = {
  packs: { added: Named[]; removed: Named[]; changed: Changed[] }
  blobs: { added: Sized[]; removed: Sized[] }
}

export function differencesOf(from: Survey, to: Survey): Differences {
  const [before, after] = [namesOf(from), namesOf(to)]
  const missingFrom = (other: ReadonlyMap<string, unknown>, all: ReadonlyMap<string, Digest>) =>
    [...all].filter(([name]) => !other.has(name)).map(([name, digest]) => ({ name, digest }))
  const changed = [...after].flatMap(([name, digest]) => {
    const was = before.get(name)
    return was === undefined || was === digest ? [] : [{ name, from: was, to: digest }]
  })
  const missingBlobs = (other: Survey, all: Survey) =>
    [...all.blobs].filter(([digest]) => !other.blobs.has(digest)).map(([digest, size]) => ({ digest, size }))
  return {
    packs: { added: missingFrom(before, after), removed: missingFrom(after, before), changed },
    blobs: { added: missingBlobs(from, to), removed: missingBlobs(to, from) },
  }
}

function namesOf(survey: Survey): Map<string, Digest> {
  const { packs, channels, referrers, attachments, images } = factsOf(survey)
  const named: [string, Digest][] = [
    ...packs.map(({ packId, version, manifestDigest }): [string, Digest] => [`${packId}@${version}`, manifestDigest]),
    ...channels.map(({ packId, channel, manifestDigest }): [string, Digest] => [
      `${packId}#${channel}`,
      manifestDigest,
    ]),
    ...attachments.map(({ packId, tag, digest }): [string, Digest] => [`${packId}#${tag}`, digest]),
    ...referrers.map(({ digest, artifactType }): [string, Digest] => [
      `${artifactType ?? 'referrer'} ${digest}`,
      digest,
    ]),
    ...images.map(({ name, digest }): [string, Digest] => [name ?? digest, digest]),
  ]
  return new Map(named.sort(([a], [b]) => (a < b ? -1 : 1)))
}
