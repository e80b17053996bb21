import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../config.ts'
import type { Limits } from '../db/client.ts'
import { closeDeps, type Deps, openDeps } from '../deps.ts'
import { type Log, openLog } from '../log.ts'
import { digestOf } from '../oci/digest.ts'
import { startServer } from '../server.ts'
import { checkAnswer } from './answers.ts'

export type TestRegistry = {
  url: string
  deps: Deps
  /** Asks the registry; the path starts with a slash. Fails where the facade answers what is not described. */
  call(method: string, path: string, init?: CallInit): Promise<Response>
  /** Pushes bytes as a blob and answers its descriptor. */
  pushBlob(repository: string, bytes: Uint8Array | string): Promise<Descriptor>
  /** Pushes an image manifest over these layers and answers its descriptor. */
  pushManifest(repository: string, reference: string, manifest?: object): Promise<Descriptor>
  stop(): Promise<void>
}

type CallInit = { headers?: Record<string, string>; body?: string | Uint8Array | ReadableStream | FormData }
export type Descriptor = { mediaType: string; digest: string; size: number }

export const imageType = 'application/vnd.oci.image.manifest.v1+json'
export const indexType = 'application/vnd.oci.image.index.v1+json'
export const emptyConfig: Descriptor = {
  mediaType: 'application/vnd.oci.empty.v1+json',
  digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
  size: 2,
}

/** An image manifest of the empty config and nothing else, unless told otherwise. */
export function sampleManifest(over: object = {}): object {
  return { schemaVersion: 2, mediaType: imageType, config: emptyConfig, layers: [], ...over }
}

/** So that many who wait for one lock all get it in the end, however slow the machine, and none is told to come back. */
const patient: Partial<Limits> = { waitMs: 120_000, answerMs: 120_000, lockMs: 25_000 }

/** A whole registry on a free port, over this database and a folder of its own. */
export async function startRegistry(
  databaseUrl: string,
  env: Record<string, string> = {},
  log: Log = openLog('silent'),
  limits: Partial<Limits> = patient,
): Promise<TestRegistry> {
  const dataDir = await mkdtemp(join(tmpdir(), 'packs-registry-'))
  const config = readConfig({ DATA_DIR: dataDir, PORT: '0', ...env })
  const deps = await openDeps(config, databaseUrl, log, limits)
  const server = await startServer(deps).catch(async (error) => {
    await closeDeps(deps)
    throw error
  })
  const call = async (method: string, path: string, init: CallInit = {}) => {
    const stream = init.body ? { duplex: 'half' as const } : {}
    const answer = await fetch(server.url + path, { method, redirect: 'manual', ...init, ...stream })
    await checkAnswer(method, path, answer)
    return answer
  }
  const registry: TestRegistry = {
    url: server.url,
    deps,
    call,
    async pushBlob(repository, content) {
      const bytes = Buffer.from(content)
      const digest = digestOf(bytes)
      const answer = await call('POST', `/v2/${repository}/blobs/uploads/?digest=${digest}`, {
        body: bytes,
        headers: { 'content-type': 'application/octet-stream' },
      })
      if (answer.status !== 201) throw new Error(`blob: ${answer.status} ${await answer.text()}`)
      return { mediaType: 'application/octet-stream', digest, size: bytes.length }
    },
    async pushManifest(repository, reference, manifest = sampleManifest()) {
      await registry.pushBlob(repository, '{}')
      const body = JSON.stringify(manifest)
      const { mediaType = imageType } = manifest as { mediaType?: string }
      const headers = { 'content-type': mediaType }
      const digest = digestOf(Buffer.from(body))
      const place = `/v2/${repository}/manifests/${reference === 'digest' ? digest : reference}`
      const answer = await call('PUT', place, { body, headers })
      if (answer.status !== 201) throw new Error(`manifest: ${answer.status} ${await answer.text()}`)
      return { mediaType, digest, size: Buffer.byteLength(body) }
    },
    async stop() {
      await server.stop()
      await closeDeps(deps)
      await rm(dataDir, { recursive: true, force: true })
    },
  }
  return registry
}

/** The first error's code in an answer of /v2. */
export async function codeOf(answer: Response): Promise<string | undefined> {
  const document = (await answer.json()) as { errors?: { code: string; message: string }[] }
  return document.errors?.[0]?.code
}
