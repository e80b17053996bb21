import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../errors.ts'
import { digestOf, parseDigest } from './digest.ts'
import { maxManifestBytes, parseManifest } from './manifest.ts'
import { parseName } from './name.ts'
import { parseChunkRange, parseRange } from './range.ts'
import { parseReference, parseTag } from './reference.ts'

const image = 'application/vnd.oci.image.manifest.v1+json'
const index = 'application/vnd.oci.image.index.v1+json'
const digest = digestOf(Buffer.from('x'))
const layer = { mediaType: 'application/octet-stream', digest, size: 1 }

describe('repository names', () => {
  for (const name of ['a', 'a/b', 'library/alpine', 'a.b_c__d---e/f', 'blobs/tags/manifests', '0', 'a/uploads'])
    it(`takes ${name}`, () => assert.equal(parseName(name), name))
  for (const name of ['', 'A', 'a//b', '/a', 'a/', 'a..b', '_a', 'a_', 'a___b', 'a b', 'a/../b', 'ä', 'a'.repeat(256)])
    it(`refuses ${JSON.stringify(name.slice(0, 20))}`, () => assert.equal(parseName(name), undefined))
})

describe('tags and digests', () => {
  for (const tag of ['latest', '1.0.0', '_x', 'A-b.c_d', 'x'.repeat(128)])
    it(`takes the tag ${tag.slice(0, 20)}`, () => assert.equal(parseTag(tag), tag))
  for (const tag of ['', '.x', '-x', 'a/b', 'a b', 'a+b', 'x'.repeat(129)])
    it(`refuses the tag ${JSON.stringify(tag.slice(0, 20))}`, () => assert.equal(parseTag(tag), undefined))
  for (const text of [
    'sha256:abc',
    `sha256:${'A'.repeat(64)}`,
    `md5:${'a'.repeat(32)}`,
    `sha512:${'a'.repeat(64)}`,
    'sha256:../../etc/passwd',
  ])
    it(`refuses the digest ${text.slice(0, 24)}`, () => assert.equal(parseDigest(text), undefined))
  it('takes a text with a colon for a digest', () => {
    assert.deepEqual(parseReference(digest), { digest })
    assert.equal(parseReference('sha256:latest'), undefined)
  })
})

describe('ranges', () => {
  const cases: [string | undefined, ReturnType<typeof parseRange>][] = [
    [undefined, 'whole'],
    ['bytes=0-9', { first: 0, last: 9 }],
    ['bytes=90-', { first: 90, last: 99 }],
    ['bytes=-10', { first: 90, last: 99 }],
    ['bytes=-500', { first: 0, last: 99 }],
    ['bytes=50-5000', { first: 50, last: 99 }],
    ['bytes=50-0', 'unsatisfiable'],
    ['bytes=100-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=0-1,3-4', 'whole'],
    ['bytes=-', 'whole'],
    ['lines=0-1', 'whole'],
    ['bytes=99999999999999999999-', 'unsatisfiable'],
  ]
  for (const [header, expected] of cases)
    it(`reads ${header}`, () => assert.deepEqual(parseRange(header, 100), expected))
  it('never leaves the content', () => {
    fc.assert(
      fc.property(fc.string(), fc.nat(), fc.nat(), fc.nat(5000), (noise, a, b, size) => {
        for (const header of [noise, `bytes=${noise}`, `bytes=${a}-${b}`, `bytes=${a}-`, `bytes=-${b}`]) {
          const range = parseRange(header, size)
          if (typeof range === 'string') continue
          assert.ok(0 <= range.first && range.first <= range.last && range.last < size)
        }
      }),
    )
  })
  it('reads a chunk without unit and total only', () => {
    assert.deepEqual(parseChunkRange('0-9'), { first: 0, last: 9 })
    for (const header of ['bytes 0-9', '0-9/10', '9-0', '-9', '0-', ''])
      assert.equal(parseChunkRange(header), undefined)
  })
})

describe('manifests', () => {
  const parse = (document: unknown, type: string | undefined = image) => parseManifest(bytesOf(document), type)
  const bytesOf = (document: unknown) =>
    Buffer.isBuffer(document)
      ? document
      : Buffer.from(typeof document === 'string' ? document : JSON.stringify(document))
  const refused = (document: unknown, type: string | undefined, detail: RegExp) =>
    assert.throws(
      () => parse(document, type),
      (error) => error instanceof Failure && error.key === 'MANIFEST_INVALID' && detail.test(String(error.detail)),
    )

  it('reads config and layers once each, without layers that are not distributed', () => {
    const foreign = {
      ...layer,
      mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
      digest: digestOf(Buffer.from('y')),
    }
    const manifest = parse({ schemaVersion: 2, config: layer, layers: [layer, layer, foreign] })
    assert.deepEqual(manifest.blobs, [digest])
    assert.equal(manifest.artifactType, layer.mediaType)
  })
  it('prefers the artifactType of the document', () => {
    assert.equal(parse({ artifactType: 'a/b', config: layer, layers: [] }).artifactType, 'a/b')
    assert.equal(parse({ manifests: [] }, index).artifactType, undefined)
  })
  it('takes what clients send: no mediaType, empty lists, unknown fields, parameters on the Content-Type', () => {
    assert.equal(parse({ schemaVersion: 2, config: layer }).mediaType, image)
    assert.equal(parse({ schemaVersion: 2, manifests: [], x: 1 }, index).kind, 'index')
    assert.equal(parse({ mediaType: image, layers: [] }, undefined).mediaType, image)
    assert.equal(parse({ layers: [] }, `${image}; charset=utf-8`).mediaType, image)
    assert.deepEqual(parse({ manifests: [layer], subject: layer }, index).children, [digest])
  })
  const bad: [string, unknown, string | undefined, RegExp][] = [
    ['no JSON', '{', image, /JSON/],
    ['a list', '[]', image, /object/],
    ['bytes that are no UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), image, /JSON/],
    ['an image that is an index too', { manifests: [], layers: [] }, index, /must not have/],
    ['an index sent as an image', { manifests: [] }, image, /is an index/],
    ['an image sent as an index', { layers: [] }, index, /is not an index/],
    ['another mediaType than sent', { mediaType: index, manifests: [] }, image, /Content-Type says/],
    ['no type at all', { layers: [] }, '', /neither/],
    ['a bad digest', { layers: [{ ...layer, digest: 'sha256:zz' }] }, image, /layers\[0\]: digest/],
    ['a negative size', { layers: [{ ...layer, size: -1 }] }, image, /size/],
    ['a size that is no number', { config: { ...layer, size: '1' } }, image, /config: size/],
    ['annotations that are no texts', { annotations: { a: 1 }, layers: [] }, image, /annotation/],
    ['a NUL in an annotation', '{"annotations":{"a":"\\u0000"},"layers":[]}', image, /NUL/],
    ['half a surrogate pair in an annotation', '{"annotations":{"\\ud800":"a"},"layers":[]}', image, /NUL/],
    ['a subject that is no descriptor', { subject: 'x', layers: [] }, image, /subject/],
    ['schema version 1', { schemaVersion: 1, layers: [] }, image, /schemaVersion/],
    ['too deep nesting', `{"x":${'['.repeat(100)}${']'.repeat(100)}}`, image, /nested/],
    ['too many descriptors', { layers: new Array(20_001).fill(layer) }, image, /more than/],
  ]
  for (const [name, document, type, detail] of bad) it(`refuses ${name}`, () => refused(document, type, detail))

  it('answers any bytes with a manifest or MANIFEST_INVALID, and quickly for the largest', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.jsonValue().map((value) => JSON.stringify({ layers: value })),
        ),
        (text) => {
          try {
            parse(text)
          } catch (error) {
            assert.ok(error instanceof Failure && error.key === 'MANIFEST_INVALID')
          }
        },
      ),
    )
    refused(`{"a":"${'x'.repeat(maxManifestBytes)}`, image, /JSON/)
  })
})
