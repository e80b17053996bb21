import type { TestRegistry } from './registry.ts'

type Json = Record<string, unknown>

/** A form of parts in this order; `type`: the Content-Type of the part. */
export type Part = { name: string; body: string | Uint8Array; filename?: string; type?: string }

/** A multipart body and its Content-Type. */
export function formOf(parts: readonly Part[], boundary = 'the-boundary'): { body: Buffer; type: string } {
  const pieces = parts.flatMap(({ name, body, filename, type }) => [
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${filename === undefined ? '' : `; filename="${filename}"`}\r\n` +
        `${type ? `Content-Type: ${type}\r\n` : ''}\r\n`,
    ),
    Buffer.from(body),
    Buffer.from('\r\n'),
  ])
  return {
    body: Buffer.concat([...pieces, Buffer.from(`--${boundary}--\r\n`)]),
    type: `multipart/form-data; boundary=${boundary}`,
  }
}

/**
 * A publish: a policy of version 1.0.0 unless `manifest` says otherwise. `content` null: without any, as a bundle is.
 * Answers status and body.
 */
export async function publish(
  registry: TestRegistry,
  manifest: Json,
  content: string | Uint8Array | null = 'content',
  query = '',
): Promise<{ status: number; body: Json; location: string | null }> {
  const { body, type } = formOf([
    { name: 'manifest', body: JSON.stringify({ version: '1.0.0', type: 'policy', ...manifest }) },
    ...(content === null
      ? []
      : [{ name: 'content', body: content, filename: 'content.tgz', type: 'application/octet-stream' }]),
  ])
  const answer = await registry.call('POST', `/packs${query}`, { body, headers: { 'content-type': type } })
  return { status: answer.status, body: (await answer.json()) as Json, location: answer.headers.get('location') }
}

/** Asks with JSON and answers status and body. */
export async function ask(registry: TestRegistry, method: string, path: string, body?: unknown) {
  const init = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }
  const answer = await registry.call(method, path, init)
  return { status: answer.status, body: (await answer.json()) as Json }
}

/** The code of a problem document. */
export function codeIn(body: Json): string {
  return String(body.type).replace('urn:packs-registry:', '')
}
