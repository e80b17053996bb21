import { digestOf } from '../../oci/digest.ts'
import { jsonText } from '../packs/request.ts'
import type { Routes } from '../routes.ts'
import { unchanged } from '../v2/reply.ts'
import { openapiDocument } from './document.ts'

/** Made when it is first asked for: most processes never are. */
let made: { text: string; digest: string } | undefined

export function addDescription(routes: Routes): void {
  routes.get('/openapi.json', (c) => {
    made ??= make()
    const headers = { etag: `"${made.digest}"`, 'cache-control': 'no-cache', 'access-control-allow-origin': '*' }
    if (unchanged(c.req.header('if-none-match'), made.digest)) return new Response(null, { status: 304, headers })
    return jsonText(made.text, { headers })
  })
}

function make(): { text: string; digest: string } {
  const text = JSON.stringify(openapiDocument())
  return { text, digest: digestOf(Buffer.from(text)) }
}
