import { isAbsolute, normalize } from 'node:path'
import { openFolderStore } from './fs.ts'
import type { S3Location } from './s3-connection.ts'
import type { BlobStore } from './store.ts'

const forms = 'Write file:/absolute/path, or s3://bucket/prefix?endpoint=https://host&region=name&pathStyle=true'

/**
 * The store that a BLOB_STORE setting names: `file:/absolute/path`, or
 * `s3://bucket/prefix?endpoint=…&region=…&pathStyle=true` (all but the bucket optional).
 * Throws an Error in words where the setting is malformed or the store cannot be used.
 */
export async function openBlobStore(setting: string): Promise<BlobStore> {
  if (setting.startsWith('file:')) return openFolderStore(folderOf(setting))
  if (setting.startsWith('s3:')) {
    const location = locationOf(setting)
    // Loading the AWS SDK takes longer than everything else; a store in a folder does without.
    const { openS3Store } = await import('./s3.ts')
    return openS3Store(location)
  }
  throw new Error(`BLOB_STORE names no kind of store this registry knows. ${forms}`)
}

function folderOf(setting: string): string {
  const path = setting.slice('file:'.length).replace(/^\/\/(?=\/)/, '')
  if (!isAbsolute(path) || path.startsWith('//')) {
    throw new Error(`BLOB_STORE=${setting} does not name a folder by its absolute path. Write file:/absolute/path`)
  }
  return normalize(path)
}

/** The parts of an `s3:` setting. No message repeats the setting: someone may have put a secret in it. */
export function locationOf(setting: string): S3Location {
  const match = /^s3:\/\/([A-Za-z0-9][A-Za-z0-9._-]{2,62})(?:\/([^?]*))?(?:\?(.*))?$/.exec(setting)
  if (!match)
    throw new Error(
      `BLOB_STORE names no bucket. ${forms}. Credentials go in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY`,
    )
  const [, bucket = '', path = '', query = ''] = match
  const options = new URLSearchParams(query)
  const known = ['endpoint', 'region', 'pathStyle']
  for (const name of options.keys()) {
    if (!known.includes(name))
      throw new Error(`BLOB_STORE has an option "${name}" nobody reads. Known are: ${known.join(', ')}`)
  }
  const endpoint = options.get('endpoint') ?? undefined
  if (endpoint !== undefined && !isServer(endpoint)) {
    throw new Error(
      'BLOB_STORE: endpoint is not the address of a server. Write endpoint=https://host or http://host:port',
    )
  }
  const pathStyle = options.get('pathStyle') ?? 'false'
  if (pathStyle !== 'true' && pathStyle !== 'false')
    throw new Error('BLOB_STORE: write pathStyle=true or pathStyle=false')
  const prefix = path.replace(/^\/+|\/+$/g, '')
  return {
    bucket,
    prefix: prefix && `${prefix}/`,
    endpoint,
    region: options.get('region') || undefined,
    pathStyle: pathStyle === 'true',
  }
}

function isServer(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) && url.username === '' && url.password === ''
}
