import { Failure } from '../errors.ts'
import { type Descriptor, parseDescriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import { isNonDistributable } from '../oci/media-types.ts'
import type { Lock, LockedPack } from '../packs/lock.ts'
import { type Contents, type Entry, inBundleTerms, invalid, type LeftOut, parseJson } from './contents.ts'

/** A manifest as the rules of a file see it. `needs`: config and layers; `members`: manifests that an index lists. */
export type Described = {
  mediaType: string
  artifactType: string | undefined
  subject: Digest | undefined
  needs: readonly Descriptor[]
  members: readonly Descriptor[]
}

/** Reads a manifest or an index; `mediaType`: what it is said to be. Throws BUNDLE_INVALID. */
export function describe(bytes: Buffer, mediaType?: string): Described {
  return inBundleTerms(() => {
    const { artifactType, subject, ...manifest } = parseManifest(bytes, mediaType)
    const { config, layers, blobs, manifests } = parseJson(bytes, 'a manifest')
    const list = (value: unknown, where: string) =>
      Array.isArray(value) ? value.map((entry, i) => parseDescriptor(entry, `${where}[${i}]`)) : []
    const content = [...list(layers, 'layers'), ...list(blobs, 'blobs')]
    return {
      mediaType: manifest.mediaType,
      artifactType,
      subject,
      needs: [
        ...(config == null ? [] : [parseDescriptor(config, 'config')]),
        ...content.filter((layer) => !isNonDistributable(layer.mediaType)),
      ],
      members: list(manifests, 'manifests'),
    }
  })
}

/**
 * What a file is judged by. `sizeOf`: of what is in it. `manifestOf`: a manifest that is in it; undefined where its
 * bytes are none. `leftOut`: what its receiver is said to have.
 */
export type Held = {
  contents: Contents
  lock: Lock | undefined
  leftOut: readonly LeftOut[]
  sizeOf(digest: Digest): number | undefined
  manifestOf(digest: Digest): Described | Failure | undefined
}

/**
 * Whether everything is there that something in the file names, with the size it names, and whether the lock speaks of
 * what is there. Answers what is wrong, in words, and which blobs are named at all.
 */
export function checkClosure(held: Held): { violations: string[]; reached: ReadonlySet<Digest> } {
  const violations: string[] = []
  const reached = new Set<Digest>()
  const leftOut = new Map(held.leftOut.map(({ digest, size }) => [digest, size]))
  const say = (words: string) => {
    violations.push(words)
  }
  const waiting: { descriptor: Descriptor; of: string }[] = []
  const arrive = (descriptor: Descriptor, of: string): boolean => {
    const size = held.sizeOf(descriptor.digest) ?? leftOut.get(descriptor.digest)
    if (size === undefined) say(`${descriptor.digest}, which ${of} names, is not in it`)
    else if (size !== descriptor.size)
      say(`${descriptor.digest} has ${size} bytes, and ${of} says that it has ${descriptor.size}`)
    const isNew = !reached.has(descriptor.digest)
    reached.add(descriptor.digest)
    return isNew && held.sizeOf(descriptor.digest) !== undefined
  }
  for (const { descriptor } of held.contents.entries)
    if (arrive(descriptor, 'index.json')) waiting.push({ descriptor, of: 'index.json' })
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { digest, mediaType } = next.descriptor
    const manifest = held.manifestOf(digest)
    if (!manifest) say(`${digest}, which ${next.of} lists, is not a manifest`)
    else if (manifest instanceof Failure) say(`${digest} is not a manifest: ${manifest.detail}`)
    else {
      if (manifest.mediaType !== mediaType) say(`${digest} is ${manifest.mediaType}, and ${next.of} says ${mediaType}`)
      for (const descriptor of manifest.needs) arrive(descriptor, digest)
      for (const descriptor of manifest.members)
        if (arrive(descriptor, digest)) waiting.push({ descriptor, of: digest })
    }
  }
  for (const entry of held.contents.entries) checkEntry(entry, held, reached, say)
  checkLock(held, say)
  return { violations, reached }
}

/** A channel points at a version in the file, and what hangs on something hangs on something in the file. */
function checkEntry(entry: Entry, held: Held, reached: ReadonlySet<Digest>, say: (words: string) => void): void {
  const { digest } = entry.descriptor
  if (entry.kind === 'referrer') {
    const manifest = held.manifestOf(digest)
    if (manifest && !(manifest instanceof Failure) && manifest.subject !== entry.subject)
      say(`${digest} hangs on ${manifest.subject ?? 'nothing'}, and index.json says on ${entry.subject}`)
  }
  if ((entry.kind === 'referrer' || entry.kind === 'attachment') && !reached.has(entry.subject))
    say(`${entry.subject}, on which ${digest} hangs, is not in it`)
}

function checkLock({ contents, lock, manifestOf }: Held, say: (words: string) => void): void {
  const published = new Map<string, Entry>()
  for (const entry of contents.entries)
    if (entry.kind === 'pack') published.set(`${entry.packId}@${entry.version}`, entry)
  const versions = new Set<string>()
  for (const entry of contents.entries)
    if (entry.kind === 'pack') versions.add(`${entry.packId} ${entry.descriptor.digest}`)
  for (const entry of contents.entries)
    if (entry.kind === 'channel' && !versions.has(`${entry.packId} ${entry.descriptor.digest}`))
      say(
        `the channel ${entry.channel} of ${entry.packId} points at ${entry.descriptor.digest}, which is no version of it here`,
      )
  for (const pack of lock?.packs ?? []) {
    const name = `${pack.packId}@${pack.version}`
    const entry = published.get(name)
    if (!entry) say(`the lock names ${name}, which is not in it`)
    else if (entry.descriptor.digest !== pack.manifestDigest || entry.descriptor.size !== pack.manifestSize)
      say(`the lock says that ${name} is ${pack.manifestDigest}, and index.json that it is ${entry.descriptor.digest}`)
    else checkContent(pack, manifestOf(pack.manifestDigest), say)
  }
}

/** The content of a pack with an index is the index itself; else it is the one layer. */
function checkContent(pack: LockedPack, manifest: Described | Failure | undefined, say: (words: string) => void): void {
  if (!manifest || manifest instanceof Failure || pack.digest === pack.manifestDigest) return
  const found = manifest.needs.some(({ digest, size }) => digest === pack.digest && size === pack.size)
  if (!found)
    say(`the lock says that the content of ${pack.packId}@${pack.version} is ${pack.digest}; its manifest does not`)
}

/** What is wrong, as one failure. Undefined where nothing is. */
export function refusalOf(violations: readonly string[]): Failure | undefined {
  const [first] = violations
  if (first === undefined) return undefined
  const more = violations.length > 1 ? ` (and ${violations.length - 1} more)` : ''
  const failure = invalid(`${first}${more}`)
  return new Failure('BUNDLE_INVALID', { detail: failure.detail, about: { violations: violations.slice(0, 100) } })
}
