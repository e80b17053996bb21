import { randomBytes } from 'node:crypto'
import type { Digest } from '../../src/oci/digest.ts'
import { configBytes, manifestBytes } from '../../src/packs/artifact.ts'
import { checkDocument } from '../../src/packs/document.ts'
import { type Content, content } from './oci.ts'
import { expectStatus, type Wire } from './wire.ts'

const contentBytes = 16 * 1024
const boundary = '----bench-7d6e0f3a91'

/** One pack, as each of the two doors takes it. */
export type RulePack = {
  readonly path: string
  readonly repository: string
  readonly tag: string
  readonly blobs: readonly [config: Content, content: Content]
  readonly manifest: Content
  readonly form: Buffer
}

type Dependencies = readonly { readonly packId: string; readonly version: string }[]
type Layer = { readonly digest: string; readonly size: number }

/** What describes version `1.<index>.0` of a pack with this content. */
export function describeRulePack(packId: string, index: number, layer: Layer, dependencies: Dependencies = []) {
  const version = `1.${index}.0`
  const checked = checkDocument({
    ...{ packId, version, type: 'policy', name: `Pack ${packId}`, author: 'bench' },
    description: 'A pack that is published to see how long it takes',
    ...(dependencies.length > 0 ? { dependencies } : {}),
    metadata: { minRunnerVersion: '1.5.0', license: 'Apache-2.0', keywords: ['bench', 'policy'] },
  })
  if ('violations' in checked) throw new Error(JSON.stringify(checked.violations))
  const { document } = checked
  const described = {
    ...{ digest: layer.digest as Digest, size: layer.size },
    ...{ mediaType: 'application/vnd.stellaops.pack.content.v1.tar+gzip', title: `${packId}-${version}.tgz` },
  }
  return {
    ...{ document, version, title: described.title, repository: `packs/${packId}` },
    config: content(configBytes(document)),
    manifest: content(manifestBytes(document, described, '2026-01-31T12:00:00Z')),
  }
}

/** Version `1.<index>.0` of a pack, with random content. */
export function makeRulePack(packId: string, index: number, dependencies?: Dependencies): RulePack {
  const layer = content(randomBytes(contentBytes))
  const described = describeRulePack(packId, index, { digest: layer.digest, size: contentBytes }, dependencies)
  const { document, version, title, repository, config, manifest } = described
  const part = (name: string, file: string, type: string, bytes: Buffer) => [
    `--${boundary}\r\ncontent-disposition: form-data; name="${name}"; filename="${file}"\r\ncontent-type: ${type}\r\n\r\n`,
    bytes,
    '\r\n',
  ]
  const pieces = [
    ...part('manifest', 'pack.json', 'application/json', Buffer.from(JSON.stringify(document))),
    ...part('content', title, 'application/gzip', layer.bytes),
    `--${boundary}--\r\n`,
  ]
  return {
    ...{ path: `/packs/${packId}/${version}`, repository, tag: version },
    ...{ blobs: [config, layer], manifest },
    form: Buffer.concat(pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece) : piece))),
  }
}

export async function publishByForm(wire: Wire, { form }: RulePack, query = ''): Promise<void> {
  const type = [`content-type: multipart/form-data; boundary=${boundary}`]
  expectStatus(await wire.request('POST', `/packs${query}`, type, form), 201, 'POST /packs')
}
