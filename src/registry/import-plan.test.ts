import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import type { PackId } from '../packs/pack.ts'
import { imageType, indexType, sampleManifest } from '../testing/registry.ts'
import { openEffort } from './import-effort.ts'
import { planImport, type Root } from './import-plan.ts'

const manifests = new Map<Digest, Buffer>()
const stored = (manifest: object, mediaType = imageType) => {
  const bytes = Buffer.from(JSON.stringify(manifest))
  const digest = digestOf(bytes)
  manifests.set(digest, bytes)
  return { mediaType, digest, size: bytes.length }
}
const channel = (packId: string, descriptor: Root['descriptor']): Root => ({
  ...{ packId: packId as PackId, tag: parseTag('stable') as Tag, descriptor },
})
const plan = (roots: Root[], referrers: { digest: Digest; subject: Digest }[]) =>
  planImport({ roots, referrers, manifestBytes: (digest) => manifests.get(digest), textOf: async () => undefined })

it('what hangs on what hangs has its place, in whatever order it is listed, however much it is', async () => {
  let subject = stored(sampleManifest())
  const root = channel('alpha', subject)
  const chain: { digest: Digest; subject: Digest }[] = []
  for (let i = 0; i < 20_000; i++) {
    const hanging = stored(sampleManifest({ subject, annotations: { i: String(i) } }))
    chain.push({ digest: hanging.digest, subject: subject.digest })
    subject = hanging
  }
  const { places, referrers } = await plan([root], chain.reverse())
  assert.equal(referrers, 20_000)
  assert.equal(places.get('alpha' as PackId)?.size, 20_001)
})

it('what hangs on a member of an index goes where that is, and on a version where that has its name', async () => {
  const version = stored(sampleManifest({ annotations: { is: 'a version' } }))
  const member = stored(sampleManifest({ annotations: { is: 'a member' } }))
  const members = stored({ schemaVersion: 2, mediaType: indexType, manifests: [version, member] }, indexType)
  const [onVersion, onMember] = [version, member].map((subject) => stored(sampleManifest({ subject })))
  const { places, referrers } = await plan(
    [channel('alpha', version), channel('bundle', members)],
    [
      { digest: onVersion?.digest as Digest, subject: version.digest },
      { digest: onMember?.digest as Digest, subject: member.digest },
      { digest: onMember?.digest as Digest, subject: digestOf(Buffer.from('nothing here')) },
    ],
  )
  assert.equal(referrers, 2)
  assert.deepEqual(places.get('alpha' as PackId), new Set([version.digest, onVersion?.digest]))
  assert.equal(places.get('bundle' as PackId)?.has(onMember?.digest as Digest), true)
  assert.equal(places.get('bundle' as PackId)?.has(onVersion?.digest as Digest), false)
})

it('refuses what would go into more places than any site has', async () => {
  const members = Array.from({ length: 1000 }, (_, i) => stored(sampleManifest({ annotations: { member: String(i) } })))
  const index = stored({ schemaVersion: 2, mediaType: indexType, manifests: members }, indexType)
  const roots = Array.from({ length: 1000 }, (_, i) => channel(`pack-${i}`, index))
  await assert.rejects(plan(roots, []), (error) => error instanceof Failure && error.key === 'IMPORT_REFUSED')
})

it('does not keep others waiting, nor reads on and on, where one large manifest has very many names', async () => {
  const large = stored(sampleManifest({ annotations: { filler: 'x'.repeat(3_000_000) } }))
  const versions = Array.from(
    { length: 5 },
    (_, i): Root => ({
      ...{ packId: 'alpha' as PackId, tag: parseTag(`1.0.${i}`) as Tag, descriptor: large },
    }),
  )
  let turns = 0
  let isOver = false
  const others = () => {
    turns++
    if (!isOver) setImmediate(others)
  }
  setImmediate(others)
  const source = {
    ...{ roots: versions, referrers: [] },
    manifestBytes: (digest: Digest) => manifests.get(digest),
    textOf: async () => undefined,
  }
  const { problems } = await planImport(source)
  isOver = true
  assert.ok(turns >= 2, String(turns))
  assert.equal(problems.length, 5)
  await assert.rejects(planImport(source, openEffort(10_000_000)), (error) => {
    assert.ok(error instanceof Failure)
    assert.equal(error.key, 'IMPORT_REFUSED')
    assert.match(String(error.detail), /more than 10000000 bytes.*export fewer packs/)
    return true
  })
})
