import { Failure } from '../errors.ts'
import { isObject } from '../oci/descriptor.ts'
import { type Digest, digestOf, hexOf, parseDigest } from '../oci/digest.ts'
import { hasMoreParts } from '../oci/json.ts'
import { type PackId, parsePackId } from '../packs/pack.ts'
import { parseVersion, type Version } from '../packs/version.ts'
import { readSignatures, signEnvelope, signersOf } from './dsse.ts'
import type { PublicKey, SigningKey } from './keys.ts'

// What a site holds, for others to leave it out of what they send: an envelope (dsse.ts) around a line of JSON and, behind
// it, digests of 32 bytes each: those of the blobs, sorted, then those of the versions' manifests, in the order of the
// line. A million digests have 43 MB that way; as a list of texts they would have 75, and a reader would need a million
// strings to look one up. Digests by another algorithm than sha256 stand in the line. The same holdings and keys give
// the same bytes. Without a key it is the same envelope with no signature in it.

/** The type of what is signed. */
export const inventoryType = 'application/vnd.stellaops.pack.inventory.v1'

export type InventoryPack = { packId: PackId; versions: { version: Version; manifestDigest: Digest }[] }

/** `blobs`: sha256 digests of 32 bytes each, sorted; `otherBlobs`: those by another algorithm. */
export type Inventory = { blobs: Buffer; otherBlobs: readonly Digest[]; packs: readonly InventoryPack[] }

const digestBytes = 32
const isShort = (digest: Digest) => digest.startsWith('sha256:')

/** The bytes of an inventory, signed by these keys. */
export function inventoryBytes({ blobs, otherBlobs, packs }: Inventory, keys: readonly SigningKey[]): Buffer {
  const versions = packs.flatMap((pack) => pack.versions)
  const line = JSON.stringify({
    inventoryVersion: 1,
    blobs: blobs.length / digestBytes,
    ...(otherBlobs.length > 0 ? { otherBlobs } : {}),
    packs: packs.map((pack) => [
      pack.packId,
      pack.versions.map(({ version, manifestDigest }) =>
        isShort(manifestDigest) ? version : [version, manifestDigest],
      ),
    ]),
  })
  const manifests = versions
    .filter(({ manifestDigest }) => isShort(manifestDigest))
    .map(({ manifestDigest }) => Buffer.from(hexOf(manifestDigest), 'hex'))
  return signEnvelope(inventoryType, Buffer.concat([Buffer.from(`${line}\n`), blobs, ...manifests]), keys)
}

/** `digest`: of what it says, whoever signed it. `signedBy`: the trusted keys that did, expired ones too. */
export type ReadInventory = { inventory: Inventory; digest: Digest; isSigned: boolean; signedBy: readonly PublicKey[] }

/**
 * Reads an inventory: its document, parsed. Throws INVENTORY_INVALID where it is none, and where it names a trusted key
 * that did not sign it.
 */
export function readInventory(document: unknown, keys: readonly PublicKey[]): ReadInventory {
  const { payload, payloadType, signatures } = isObject(document) ? document : {}
  if (payloadType !== inventoryType) throw invalid(`it is not of the type ${inventoryType}`)
  const content = typeof payload === 'string' ? Buffer.from(payload, 'base64') : undefined
  // Node leaves out what is no base64; then there are fewer bytes than the text has room for.
  if (!content || content.toString('base64') !== payload) throw invalid('its payload is not base64')
  const envelope = { payloadType, payload: content, signatures: readSignatures(signatures, invalid) }
  const signedBy = signersOf(envelope, keys)
  const named = keys.find(({ keyid }) => envelope.signatures.some((signature) => signature.keyid === keyid))
  if (named && signedBy.length === 0)
    throw invalid(`it names the trusted key ${named.name ?? named.keyid}, but that key did not sign this`)
  const isSigned = envelope.signatures.length > 0
  return { inventory: parsePayload(content), digest: digestOf(content), isSigned, signedBy }
}

function parsePayload(content: Buffer): Inventory {
  const end = content.indexOf(0x0a)
  const line = parseLine(content.subarray(0, Math.max(end, 0)))
  const { blobs: count, otherBlobs = [], packs } = line
  if (line.inventoryVersion !== 1) throw invalid('it is of another version than 1, the one this program knows')
  if (!Number.isSafeInteger(count) || Number(count) < 0) throw invalid('"blobs" must be a count')
  if (!Array.isArray(otherBlobs) || !Array.isArray(packs)) throw invalid('"otherBlobs" and "packs" must be lists')
  const digests = content.subarray(end + 1)
  const blobsEnd = Number(count) * digestBytes
  const blobs = digests.subarray(0, blobsEnd)
  if (blobs.length !== blobsEnd) throw invalid('it ends before its digests do')
  requireSorted(blobs)
  const manifests = takeFrom(digests.subarray(blobsEnd))
  const read = packs.map((pack) => packOf(pack, manifests))
  if (!manifests.isEmpty()) throw invalid('it has more digests than it says')
  return { blobs, otherBlobs: otherBlobs.map(digestIn), packs: read }
}

/** A million versions have half as many; the line is text within text to whoever looks at the size of a request. */
const mostParts = 2_000_000

function parseLine(bytes: Buffer): Record<string, unknown> {
  if (hasMoreParts(bytes, mostParts)) throw invalid(`its line of JSON has more than ${mostParts} parts`)
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    if (isObject(value)) return value
  } catch (cause) {
    throw invalid('it does not begin with a line of JSON', cause)
  }
  throw invalid('it does not begin with a JSON object')
}

type Taken = { next(): Digest; isEmpty(): boolean }

function takeFrom(digests: Buffer): Taken {
  let at = 0
  return {
    next() {
      if (at + digestBytes > digests.length) throw invalid('it ends before its digests do')
      const hex = digests.toString('hex', at, at + digestBytes)
      at += digestBytes
      return `sha256:${hex}` as Digest
    },
    isEmpty: () => at === digests.length,
  }
}

function packOf(value: unknown, manifests: Taken): InventoryPack {
  const [id, versions] = Array.isArray(value) ? value : []
  const packId = typeof id === 'string' ? parsePackId(id) : undefined
  if (!packId || !Array.isArray(versions)) throw invalid('a pack in it must be [id, versions]')
  return {
    packId,
    versions: versions.map((written: unknown) => {
      const [text, digest] = Array.isArray(written) ? written : [written]
      const version = typeof text === 'string' ? parseVersion(text) : undefined
      if (!version) throw invalid(`${packId} has a version in it that is none`)
      return { version, manifestDigest: digest === undefined ? manifests.next() : digestIn(digest) }
    }),
  }
}

function digestIn(value: unknown): Digest {
  const digest = typeof value === 'string' ? parseDigest(value) : undefined
  if (digest) return digest
  const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 200)) : 'what is no text'
  throw invalid(`${shown} is not a digest`)
}

function requireSorted(blobs: Buffer): void {
  for (let at = digestBytes; at < blobs.length; at += digestBytes)
    if (blobs.compare(blobs, at, at + digestBytes, at - digestBytes, at) >= 0)
      throw invalid('its digests are not in order')
}

/**
 * What `packs bundle inventory --json` lists of a file, as an inventory: whoever has taken that file holds it. Undefined
 * where the document is no such list.
 */
export function inventoryOfList(document: unknown): Inventory | undefined {
  const { digests } = isObject(document) ? document : {}
  if (!Array.isArray(digests)) return undefined
  const listed = digests.map((entry: unknown) => digestIn(isObject(entry) ? entry.digest : undefined)).sort()
  const hexes = listed.filter(isShort).map(hexOf)
  return { blobs: Buffer.from(hexes.join(''), 'hex'), otherBlobs: listed.filter((one) => !isShort(one)), packs: [] }
}

/** Whether the site holds this blob. */
export function holds({ blobs, otherBlobs }: Inventory, digest: Digest): boolean {
  if (!isShort(digest)) return otherBlobs.includes(digest)
  const wanted = Buffer.from(hexOf(digest), 'hex')
  let [low, high] = [0, blobs.length / digestBytes]
  while (low < high) {
    const middle = (low + high) >>> 1
    const at = middle * digestBytes
    const order = blobs.compare(wanted, 0, digestBytes, at, at + digestBytes)
    if (order === 0) return true
    if (order < 0) low = middle + 1
    else high = middle
  }
  return false
}

function invalid(detail: string, cause?: unknown): Failure {
  return new Failure('INVENTORY_INVALID', {
    detail: `this is not an inventory, as GET /inventory answers it: ${detail}`,
    cause,
  })
}
