import type { VersionContent } from '../../db/pack-versions.ts'
import type { Deps } from '../../deps.ts'
import { hexOf } from '../../oci/digest.ts'
import { repositoryOf } from '../../packs/pack.ts'
import { gone } from '../../registry/damage.ts'
import { requireAccess } from '../access.ts'
import type { Routes } from '../routes.ts'
import { sendBlob } from '../v2/blobs.ts'
import { fieldsOf, type Head, inert, unchanged } from '../v2/reply.ts'
import { cacheControl } from './answer.ts'
import { sendBundle } from './bundle.ts'
import { packIdParam, queryOf, runnerQuery } from './request.ts'
import { selectVersion } from './select.ts'

export function addPackContent(routes: Routes, deps: Deps): void {
  // HEAD arrives here too.
  routes.get('/packs/:id/:version', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const selector = c.req.param('version') ?? ''
    const { runner } = queryOf(c, runnerQuery)
    const row = await selectVersion(deps, packId, selector, runner)
    if (row.digest === row.manifestDigest) return sendBundle(c, deps, row, { exact: selector === row.version })
    if (!row.key) throw await gone(deps, row.digest)
    const fields = fieldsOf(contentHead(row, selector === row.version))
    if (unchanged(c.req.header('if-none-match'), row.digest))
      return new Response(null, { status: 304, headers: fields as Record<string, string> })
    if (c.req.method === 'HEAD')
      return new Response(null, {
        headers: { ...(fields as Record<string, string>), 'content-length': String(row.size) },
      })
    return sendBlob(c, deps, row.digest, { key: row.key, size: row.size }, fields)
  })
}

/** What is said of content beside its bytes. */
export function contentHead(row: VersionContent, exact: boolean): Head {
  const { digest, mediaType, packId, version, title } = row
  const name = title ?? `${packId}-${version}.tgz`
  const algorithm = digest.startsWith('sha256') ? 'sha-256' : 'sha-512'
  return [
    ...['content-type', mediaType, 'etag', `"${digest}"`],
    ...['repr-digest', `${algorithm}=:${Buffer.from(hexOf(digest), 'hex').toString('base64')}:`],
    ...['content-disposition', disposition(name), 'docker-content-digest', digest, 'x-pack-version', version],
    ...['accept-ranges', 'bytes', 'cache-control', cacheControl(exact), ...inert],
  ]
}

/** Source: RFC 6266, section 4.3, and RFC 8187 for names beyond ASCII. */
function disposition(name: string): string {
  const file = name.split(/[\\/]/).at(-1) || 'content'
  if (/^[\w.+-]+$/.test(file)) return `attachment; filename="${file}"`
  const plain = file.replace(/[^\x20-\x7e]|["\\%]/g, '_')
  const encoded = encodeURIComponent(file).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
  return `attachment; filename="${plain}"${plain === file ? '' : `; filename*=UTF-8''${encoded}`}`
}
