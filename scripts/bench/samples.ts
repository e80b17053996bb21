import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { acceptFor, type Content, content, manifestOf, manifestType, putBlob, putManifest } from './oci.ts'
import { header, Wire } from './wire.ts'

/** Of its own: a registry that keeps its tags in one list should not search that list where other things are timed. */
const tagsRepository = 'bench/tags'
const repository = 'bench/read'
const tag = '1.0.0'

/** What is read in the benchmark, the same bytes from every registry. */
export function makeSamples() {
  const config = content(Buffer.from('{"what":"read"}'))
  const small = content(randomBytes(4096))
  const large = content(randomBytes(64 << 20))
  const tags = Array.from({ length: 100 }, (_, at) => `1.0.${String(at).padStart(2, '0')}`)
  return { config, small, large, tags, manifest: manifestOf(config, [small, large]) }
}

export type Samples = ReturnType<typeof makeSamples>

export function pathsOf({ small, large, manifest, tags }: Samples) {
  const root = `/v2/${repository}`
  return {
    byTag: `${root}/manifests/${tag}`,
    byDigest: `${root}/manifests/${manifest.digest}`,
    small: `${root}/blobs/${small.digest}`,
    large: `${root}/blobs/${large.digest}`,
    tags: `/v2/${tagsRepository}/tags/list`,
    eachTag: tags.map((name) => `/v2/${tagsRepository}/manifests/${name}`),
  }
}

/** What all of the hundred tags name. */
const taggedOf = ({ config, small }: Samples) => manifestOf(config, [small])

export async function pushSamples(origin: string, samples: Samples): Promise<void> {
  const { config, small, large, tags, manifest } = samples
  const wire = new Wire(origin)
  for (const blob of [config, small, large]) await putBlob(wire, repository, blob)
  await putManifest(wire, repository, tag, manifest)
  for (const blob of [config, small]) await putBlob(wire, tagsRepository, blob)
  for (const name of tags) await putManifest(wire, tagsRepository, name, taggedOf(samples))
  wire.close()
}

/** The same answers as files, for a server that knows nothing of registries. */
export async function writeSamples(folder: string, samples: Samples): Promise<void> {
  const paths = pathsOf(samples)
  const files: [string, Buffer][] = [
    [paths.byTag, samples.manifest.bytes],
    [paths.byDigest, samples.manifest.bytes],
    [paths.small, samples.small.bytes],
    [paths.large, samples.large.bytes],
    [paths.tags, Buffer.from(JSON.stringify({ name: tagsRepository, tags: samples.tags }))],
    ...paths.eachTag.map((path): [string, Buffer] => [path, taggedOf(samples).bytes]),
  ]
  for (const [path, bytes] of files) {
    const file = join(folder, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, bytes)
  }
}

/** Throws unless every path that will be timed gives the right answer, GET and HEAD. */
export async function verifySamples(origin: string, samples: Samples, { registry = true } = {}): Promise<void> {
  const paths = pathsOf(samples)
  const wire = new Wire(origin)
  const expected: [string, Content][] = [
    [paths.byTag, samples.manifest],
    [paths.byDigest, samples.manifest],
    [paths.small, samples.small],
    [paths.large, samples.large],
  ]
  for (const [path, { bytes, digest }] of expected) {
    const accept = [`accept: ${acceptFor(path)}`]
    const answer = await wire.request('GET', path, accept)
    if (answer.status !== 200) throw new Error(`GET ${path}: ${answer.status}`)
    if (!answer.body.equals(bytes)) throw new Error(`GET ${path}: other bytes than were pushed`)
    const { status, head } = await wire.request('HEAD', path, accept)
    if (status !== 200) throw new Error(`HEAD ${path}: ${status}`)
    if (Number(header(head, 'content-length')) !== bytes.length) throw new Error(`HEAD ${path}: wrong length: ${head}`)
    if (!registry) continue
    if (header(head, 'docker-content-digest') !== digest) throw new Error(`HEAD ${path}: wrong digest: ${head}`)
    if (path.includes('/manifests/') && header(head, 'content-type') !== manifestType)
      throw new Error(`HEAD ${path}: wrong content type: ${head}`)
  }
  const { body } = await wire.request('GET', paths.tags)
  const { tags } = JSON.parse(body.toString()) as { tags: string[] }
  if (tags.toSorted().join() !== samples.tags.join()) throw new Error(`GET ${paths.tags}: other tags than were pushed`)
  wire.close()
}
