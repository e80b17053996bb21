import { Readable } from 'node:stream'
import { type Contents, documentOf, parseIndex } from '../bundles/contents.ts'
import type { Meter } from '../bundles/meter.ts'
import { defaultLimits, readFiles } from '../bundles/read.ts'
import { type Collection, documentsOf, maxDocumentBytes, openCollection, type Survey } from '../bundles/survey.ts'
import { filesOfTar, type LayoutFile } from '../bundles/tar.ts'
import type { ImportBlob } from '../db/import-blobs.ts'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts'
import { type Intake, type Place, smallBytes } from './import-intake.ts'

/** A bundle as it was received. `payloads`: manifests and documents. `texts`: small JSON, configs among it. */
export type Received = {
  survey: Survey
  payloads: ReadonlyMap<Digest, Buffer>
  texts: ReadonlyMap<Digest, Buffer>
}

/** What came of the file before, where only the rest of it is sent. `contentOf`: of what is in the store. */
export type Before = {
  index: Buffer | undefined
  envelope: Buffer | undefined
  blobs: readonly ImportBlob[]
  contentOf(digest: Digest): Promise<Buffer | undefined>
}

/** Who is told of the file while it comes. What they throw ends it: then the rest need not be sent. */
export type Told = {
  onIndex(bytes: Buffer, contents: Contents): Promise<void>
  onEnvelope(bytes: Buffer): Promise<void>
  /** What an incremental bundle leaves out, as soon as it is known. */
  onLeftOut(leftOut: Survey['leftOut']): Promise<void>
  /** How many blobs there are so far. */
  onBlob(count: number): void
}

/**
 * Reads a bundle as it comes, and hands its content to the intake. Throws what `readLayout` throws, and what those who
 * are told throw.
 */
export async function receive(meter: Meter, intake: Intake, before: Before | undefined, told: Told): Promise<Received> {
  const collection = openCollection()
  const { found } = collection
  const payloads = new Map<Digest, Buffer>()
  const texts = openTexts()
  let leftOut = openLeftOut(undefined, found, told)
  for (const blob of before?.blobs ?? []) {
    recall(blob, collection)
    if (blob.payload) payloads.set(blob.digest, blob.payload)
  }
  const take = takerOf(collection, intake, payloads, texts)
  const reader = {
    onIndex: async (bytes: Buffer) => {
      const contents = parseIndex(bytes)
      await told.onIndex(bytes, contents)
      leftOut = openLeftOut(contents, found, told)
      await leftOut.look()
    },
    onEnvelope: (bytes: Buffer) => told.onEnvelope(bytes),
    onBlob: async ({ digest, size }: { digest: Digest; size: number }, content: Readable) => {
      const end = meter.endOf(`blobs/${algorithmOf(digest)}/${hexOf(digest)}`)
      await take({ digest, size, end }, content)
      told.onBlob(found.blobs.size)
      await leftOut.look()
    },
  }
  const layout = await readFiles(filesFrom(meter, before), reader, defaultLimits)
  await intake.finish()
  const contents = parseIndex(layout.index)
  if (before) await recallDocuments(contents, collection, before)
  return { survey: surveyOf(layout, contents, found), payloads, texts: texts.kept }
}

function surveyOf(
  { index, envelope }: { index: Buffer; envelope: Buffer | undefined },
  contents: Contents,
  found: Collection,
): Survey {
  const size = [...found.blobs.values()].reduce((sum, bytes) => sum + bytes, 0)
  const layout = { index, envelope, blobs: found.blobs.size, size }
  return { layout, contents, blobs: found.blobs, manifests: found.manifests, ...documentsOf(contents, found) }
}

/** A bundle that was received whole, as its rows have it. */
export async function recalled(whole: Before & { index: Buffer }): Promise<Received> {
  const collection = openCollection()
  const payloads = new Map<Digest, Buffer>()
  for (const blob of whole.blobs) {
    recall(blob, collection)
    if (blob.payload) payloads.set(blob.digest, blob.payload)
  }
  const contents = parseIndex(whole.index)
  await recallDocuments(contents, collection, whole)
  return { survey: surveyOf(whole, contents, collection.found), payloads, texts: new Map() }
}

/** A lock, or a list of what is left out, that was too large for a row is in the store, and is recognised again from there. */
async function recallDocuments(
  { entries }: Contents,
  { found, take }: ReturnType<typeof openCollection>,
  { contentOf }: Before,
): Promise<void> {
  for (const { kind, descriptor } of entries) {
    const manifest = found.raw.get(descriptor.digest)
    if ((kind !== 'lock' && kind !== 'missing') || !manifest) continue
    const { digest } = documentOf(manifest, kind)
    const size = found.blobs.get(digest)
    if (size === undefined || size > maxDocumentBytes || found.raw.has(digest)) continue
    const bytes = await contentOf(digest)
    if (!bytes) continue
    const taking = take(digest, size)
    taking.piece(bytes)
    taking.end()
  }
}

/** The files that come, and before them the head of the file where it came before. */
async function* filesFrom({ through }: Meter, before: Before | undefined): AsyncGenerator<LayoutFile> {
  if (before?.index) yield fileOf('index.json', before.index)
  if (before?.envelope) yield fileOf('bundle.dsse.json', before.envelope)
  yield* filesOfTar(through, defaultLimits)
}

function fileOf(name: string, bytes: Buffer): LayoutFile {
  return { name, size: bytes.length, content: Readable.from([bytes]) as AsyncIterable<Buffer> }
}

/** Takes blobs, each by its size. */
function takerOf(
  collection: ReturnType<typeof openCollection>,
  intake: Intake,
  payloads: Map<Digest, Buffer>,
  texts: ReturnType<typeof openTexts>,
) {
  const { found } = collection
  async function takeSmall(place: Place, content: Readable): Promise<void> {
    const { digest, size } = place
    const taking = collection.take(digest, size)
    const pieces: Buffer[] = []
    for await (const piece of content as AsyncIterable<Buffer>) {
      taking.piece(piece)
      pieces.push(piece)
    }
    const bytes = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
    taking.end()
    const keep = isKept(found, digest)
    // A copy: what came in one piece is a part of a much larger one.
    if (keep) payloads.set(digest, Buffer.from(bytes))
    else texts.add(digest, bytes)
    await intake.add(place, bytes, { keep })
  }

  /** Of large content only a lock, or a list of what is left out, is looked at on its way. */
  async function takeLarge(place: Place, content: Readable): Promise<void> {
    const { digest, size } = place
    let taking: ReturnType<typeof collection.take> | undefined
    async function* shown(): AsyncGenerator<Buffer> {
      let isFirst = true
      for await (const piece of content as AsyncIterable<Buffer>) {
        if (isFirst && /^\{"(?:lockVersion|digests)"/.test(piece.toString('latin1', 0, 16)))
          taking = collection.take(digest, size)
        isFirst = false
        taking?.piece(piece)
        yield piece
      }
    }
    await intake.stream(place, Readable.from(shown(), { objectMode: false, highWaterMark: smallBytes }))
    if (taking) taking.end()
    else found.blobs.set(digest, size)
  }

  return (place: Place, content: Readable) => (place.size > smallBytes ? takeLarge : takeSmall)(place, content)
}

/** What came before the cut is recognised as if it came now. */
function recall({ digest, size, payload }: ImportBlob, collection: ReturnType<typeof openCollection>): void {
  if (!payload) {
    collection.found.blobs.set(digest, size)
    return
  }
  const taking = collection.take(digest, size)
  taking.piece(payload)
  taking.end()
}

/** Manifests and documents are kept in rows; what only looks like one is content like any other. */
function isKept({ manifests, raw }: Collection, digest: Digest): boolean {
  const manifest = manifests.get(digest)
  return raw.has(digest) || (manifest !== undefined && !(manifest instanceof Failure))
}

/** Small JSON that is kept to be looked at, in bytes together; the rest is read again from where it went. */
const mostTextBytes = 64 * 1024 * 1024
const mostText = 64 * 1024

function openTexts() {
  const kept = new Map<Digest, Buffer>()
  let size = 0
  return {
    kept,
    add(digest: Digest, bytes: Buffer): void {
      if (bytes[0] !== 0x7b || bytes.length > mostText || size + bytes.length > mostTextBytes) return
      // A copy: what came in one piece is a part of a much larger one.
      kept.set(digest, Buffer.from(bytes))
      size += bytes.length
    },
  }
}

/** Tells once what is left out, when the list and the index that names it are there. */
function openLeftOut(contents: Contents | undefined, found: Collection, told: Told) {
  const entry = contents?.entries.find(({ kind }) => kind === 'missing')
  let isTold = !contents || !entry
  let seen = -1
  return {
    async look(): Promise<void> {
      // Only a new document can be what was waited for.
      if (isTold || !contents || !entry || found.raw.size === seen || !found.raw.has(entry.descriptor.digest)) return
      seen = found.raw.size
      const { leftOut } = ifThere(() => documentsOf({ ...contents, entries: [entry] }, found)) ?? {}
      if (!leftOut) return
      isTold = true
      await told.onLeftOut(leftOut)
    },
  }
}

function ifThere<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    if (error instanceof Failure && error.key === 'BUNDLE_INVALID') return undefined
    throw error
  }
}
