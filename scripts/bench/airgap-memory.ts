import { createCipheriv, createHash } from 'node:crypto'
import http, { type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { mediaTypes } from '../../src/oci/media-types.ts'
import { configBytes, manifestBytes } from '../../src/packs/artifact.ts'
import { checkDocument } from '../../src/packs/document.ts'
import { type PackDocument, packMediaTypes } from '../../src/packs/pack.ts'
import { tagOf } from '../../src/packs/version.ts'
import { tarOf } from '../../src/testing/bundle.ts'
import { freeBytes, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import type { Options } from './main.ts'
import { peakOf, resetPeaks } from './processes.ts'
import { printVerdicts, type Verdict } from './verdicts.ts'

// How much memory one process takes for a bundle of any size. What comes in is made while it is sent, and what leaves is
// hashed and thrown away: so the disk holds the content once, in the store.

const mebibyte = 1 << 20
const largestMebibytes = 512
const mostMegabytes = 250

/** Prints the peaks of an import and of an export; gives whether both stayed within the limit, or --check was not asked for. */
export async function airGapMemory({ size = 20_480, dir, check }: Options): Promise<boolean> {
  const folder = await scratchFolder(dir)
  if ((await freeBytes(folder)) < size * mebibyte * 1.1) throw new Error(`${folder} has no room for ${size} MiB`)
  const site = await startPacks({ folder, label: 'airgap-memory', processes: 1 })
  const { entries, bytes } = layoutOf(size)
  await resetPeaks(site)
  const came = await timed(() => send(`${site.origin}/bundles/import`, entries, bytes))
  const importPeak = (await peakOf(site)).own
  await resetPeaks(site)
  const left = await timed(() => fetchAll(site.origin))
  const exportPeak = (await peakOf(site)).own
  await site.stop()
  const verdicts = [
    verdictOf('import', came.seconds, bytes, importPeak),
    verdictOf('export', left.seconds, left.result, exportPeak),
  ]
  printVerdicts(verdicts)
  return !check || verdicts.every(({ met }) => met)
}

function verdictOf(what: string, seconds: number, bytes: number, peak: number): Verdict {
  const rate = Math.round(bytes / seconds / 1e6)
  return {
    title: `${what} of ${Math.round(bytes / mebibyte)} MiB (${Math.round(seconds)} s, ${rate} MB/s): resident`,
    figure: `${Math.round(peak)} MB`,
    target: `≤ ${mostMegabytes} MB`,
    met: peak <= mostMegabytes,
  }
}

async function timed<T>(work: () => Promise<T>): Promise<{ result: T; seconds: number }> {
  const started = performance.now()
  return { result: await work(), seconds: (performance.now() - started) / 1000 }
}

/** Bytes that nothing compresses, and that are the same each time; no two contents are alike. */
function* contentOf(index: number, mebibytes: number): Generator<Buffer> {
  const key = Buffer.alloc(16)
  key.writeUInt32BE(index)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  const zeros = Buffer.alloc(mebibyte)
  for (let at = 0; at < mebibytes; at++) yield cipher.update(zeros)
}

type Entry = { name: string; size: number; bytes(): Iterable<Buffer> }

/** A layout of packs, whose content is made twice: to know its digest, and to be sent. */
function layoutOf(mebibytes: number): { entries: Entry[]; bytes: number } {
  const blobs = new Map<Digest, Entry>()
  const add = (digest: Digest, size: number, bytes: () => Iterable<Buffer>) => {
    blobs.set(digest, { name: `blobs/${digest.replace(':', '/')}`, size, bytes })
    return { digest, size }
  }
  const whole = (bytes: Buffer) => add(digestOf(bytes), bytes.length, () => [bytes])
  const manifests = Array.from({ length: Math.ceil(mebibytes / largestMebibytes) }, (_, index) => {
    const own = Math.min(largestMebibytes, mebibytes - index * largestMebibytes)
    const hash = createHash('sha256')
    for (const piece of contentOf(index, own)) hash.update(piece)
    const layer = add(`sha256:${hash.digest('hex')}` as Digest, own * mebibyte, () => contentOf(index, own))
    const checked = checkDocument({ packId: `bench-large-${index}`, version: '1.0.0', type: 'policy' })
    const { document } = checked as { document: PackDocument }
    whole(configBytes(document))
    const bytes = manifestBytes(document, { ...layer, mediaType: packMediaTypes.content }, '2026-01-01T00:00:00Z')
    const name = `packs/${document.packId}:${tagOf(document.version)}`
    const annotations = { 'org.opencontainers.image.ref.name': name }
    return { mediaType: mediaTypes.manifest, ...whole(bytes), annotations }
  })
  const file = (name: string, document: object): Entry => {
    const bytes = Buffer.from(JSON.stringify(document))
    return { name, size: bytes.length, bytes: () => [bytes] }
  }
  const index = { schemaVersion: 2, mediaType: mediaTypes.index, manifests }
  const head = [file('oci-layout', { imageLayoutVersion: '1.0.0' }), file('index.json', index)]
  const entries = [...head, ...blobs.values()]
  const padded = (size: number) => 512 + Math.ceil(size / 512) * 512
  return { entries, bytes: entries.reduce((sum, { size }) => sum + padded(size), 1024) }
}

function* archiveOf(entries: readonly Entry[]): Generator<Buffer> {
  for (const { name, size, bytes } of entries) {
    yield tarOf([{ name, size }], { end: false })
    yield* bytes()
    if (size % 512 > 0) yield Buffer.alloc(512 - (size % 512))
  }
  yield Buffer.alloc(1024)
}

async function send(url: string, entries: readonly Entry[], length: number): Promise<void> {
  const request = http.request(url, { method: 'POST', headers: { 'content-length': length } })
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request.on('response', resolve).on('error', reject)
  })
  await Promise.all([pipeline(Readable.from(archiveOf(entries), { objectMode: false }), request), answered])
  const answer = await answered
  const text = (await answer.toArray()).join('')
  if (answer.statusCode !== 201) throw new Error(`the import is answered with ${answer.statusCode}: ${text}`)
}

/** Fetches a bundle of everything, hashes it and keeps nothing; answers how many bytes it had. */
async function fetchAll(origin: string): Promise<number> {
  const answer = await fetch(`${origin}/bundles`, { method: 'POST', body: '{"all":true}' })
  if (!answer.ok || !answer.body) throw new Error(`the export is answered with ${answer.status}`)
  const hash = createHash('sha256')
  let bytes = 0
  for await (const piece of answer.body) {
    hash.update(piece)
    bytes += piece.length
  }
  if (bytes !== Number(answer.headers.get('content-length'))) throw new Error('the export was cut off')
  console.log(`sha256 of the export: ${hash.digest('hex')}`)
  return bytes
}
