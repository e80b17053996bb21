import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Descriptor, imageManifest, sha256 } from './registry-client.ts'

const imageIndex = 'application/vnd.oci.image.index.v1+json'

/** An OCI image layout: a folder of blobs by digest, and an index of what is tagged. */
export function createLayout(folder: string) {
  mkdirSync(join(folder, 'blobs', 'sha256'), { recursive: true })
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const tagged: (Descriptor & { annotations: Record<string, string> })[] = []

  function addBlob(mediaType: string, content: Buffer | object): Descriptor {
    const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content))
    const digest = sha256(bytes)
    writeFileSync(join(folder, 'blobs', ...digest.split(':')), bytes)
    return { mediaType, digest, size: bytes.length }
  }

  return {
    /** An image of one layer that holds `files`. */
    addImage(files: Record<string, string>, architecture = 'amd64'): Descriptor & { platform: object } {
      const tar = tarOf(mkdtempSync(join(folder, 'layer-')), files)
      const platform = { os: 'linux', architecture }
      const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`
      const config = addBlob('application/vnd.oci.image.config.v1+json', {
        ...platform,
        config: { Labels: { made: 'for a test' } },
        rootfs: { type: 'layers', diff_ids: [diffId] },
        history: [{ created_by: 'a test' }],
      })
      const layer = addBlob('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(tar))
      const manifest = { schemaVersion: 2, mediaType: imageManifest, config, layers: [layer] }
      return { ...addBlob(imageManifest, manifest), platform }
    },
    addIndex: (manifests: readonly Descriptor[]): Descriptor =>
      addBlob(imageIndex, { schemaVersion: 2, mediaType: imageIndex, manifests }),
    tag(descriptor: Descriptor, name: string): void {
      tagged.push({ ...descriptor, annotations: { 'org.opencontainers.image.ref.name': name } })
      const index = { schemaVersion: 2, mediaType: imageIndex, manifests: tagged }
      writeFileSync(join(folder, 'index.json'), JSON.stringify(index))
    },
  }
}

/** The tar archive of a fresh folder filled with `files`, the same for the same files. */
export function tarOf(folder: string, files: Record<string, string>): Buffer {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  return execFileSync('tar', ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '-c', '-C', folder, '.'], {
    maxBuffer: 1 << 26,
  })
}

/** Digests of all blobs in a layout, in order. Throws where one's bytes are not what its name says. */
export function blobsOf(layout: string): string[] {
  const folder = join(layout, 'blobs', 'sha256')
  return readdirSync(folder)
    .sort()
    .map((hex) => {
      const digest = sha256(readFileSync(join(folder, hex)))
      if (digest !== `sha256:${hex}`) throw new Error(`${folder}/${hex} has the digest ${digest}`)
      return digest
    })
}
