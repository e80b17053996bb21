import { PacksError } from './failure.ts'
import { isPackId, isVersion, type PackType } from './pack.ts'

/** A dependency as a lock has it. `version`: the range; `resolved`: the version that the lock has for it. */
export type LockedDependency = { packId: string; version: string; optional?: true; resolved?: string }

/**
 * A pack in a lock. `digest`, `size` (bytes), `mediaType` and `title` (the file name its author gave) are the content's;
 * a bundle that is an index has no content, and these are the index's own.
 */
export type LockedPack = {
  packId: string
  version: string
  type: PackType
  digest: string
  size: number
  mediaType: string
  title?: string
  manifestDigest: string
  manifestSize: number
  dependencies: LockedDependency[]
}

/**
 * The exact versions and digests of everything that some packs need: whoever pulls it gets the same bytes at any time
 * and place. Media type: `application/vnd.stellaops.pack.lock.v1+json`.
 */
export type Lock = {
  lockVersion: 1
  roots: { packId: string; version: string }[]
  runner?: string
  channel?: string
  packs: LockedPack[]
}

const packTypes: readonly unknown[] = ['policy', 'analyzer', 'task', 'bundle'] satisfies PackType[]

type Fields = Record<string, unknown>

/** The lock in a file's text. Throws LOCK_INVALID with everything that is wrong with it. */
export function parseLock(text: string | Uint8Array): Lock {
  return checkLock(jsonIn(text))
}

function jsonIn(text: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof text === 'string' ? text : new TextDecoder('utf-8', { fatal: true }).decode(text))
  } catch (error) {
    throw notJson(error)
  }
}

function notJson(cause: unknown): PacksError {
  return new PacksError('LOCK_INVALID', `the lock is not JSON in UTF-8: ${(cause as Error).message}`, { cause })
}

/** The value, known to be a lock that can be pulled. Throws LOCK_INVALID with everything that is wrong with it. */
export function checkLock(value: unknown): Lock {
  const { lockVersion, roots, packs } = fieldsOf(value)
  if (typeof lockVersion === 'number' && lockVersion > 1)
    throw new PacksError(
      'LOCK_INVALID',
      `the lock has lockVersion ${lockVersion}, and this client reads 1: use a newer client, or resolve again with this one`,
    )
  const wrong: string[] = []
  if (lockVersion !== 1) wrong.push('lockVersion must be 1')
  if (!Array.isArray(roots)) wrong.push('roots must be a list')
  if (!Array.isArray(packs)) wrong.push('packs must be a list')
  const entries = Array.isArray(packs) ? packs.map(fieldsOf) : []
  const versions = new Map<unknown, unknown>()
  entries.forEach((entry, i) => {
    wrong.push(...wrongWith(entry).map((what) => `packs.${i}.${what}`))
    if (versions.has(entry.packId)) wrong.push(`packs.${i} is ${entry.packId} again; a lock has one version of a pack`)
    versions.set(entry.packId, entry.version)
  })
  if (Array.isArray(roots))
    roots.map(fieldsOf).forEach(({ packId }, i) => {
      if (!versions.has(packId)) wrong.push(`roots.${i}: packs has no ${JSON.stringify(packId)}`)
    })
  entries.forEach(({ dependencies }, i) => {
    wrong.push(...missingOf(dependencies, versions).map((what) => `packs.${i}.${what}`))
  })
  if (wrong.length === 0) return value as Lock
  const more = wrong.length > 20 ? `; and ${wrong.length - 20} more` : ''
  throw new PacksError('LOCK_INVALID', `not a lock: ${wrong.slice(0, 20).join('; ')}${more}`, {
    about: { violations: wrong.slice(0, 100) },
  })
}

/** What keeps an entry from being pulled. */
export function wrongWith(entry: Fields): string[] {
  const { packId, version, type, digest, size, mediaType, title, manifestDigest, manifestSize } = entry
  const rules: [boolean, string][] = [
    [isPackId(packId), 'packId must be the id of a pack'],
    [isVersion(version), 'version must be a version, such as 1.4.0'],
    [packTypes.includes(type), `type must be one of ${packTypes.join(', ')}`],
    [isDigest(digest), 'digest must be sha256: and 64 hex digits'],
    [isSize(size), 'size must be a number of bytes'],
    [typeof mediaType === 'string', 'mediaType must be text'],
    [title === undefined || typeof title === 'string', 'title must be text'],
    [isDigest(manifestDigest), 'manifestDigest must be sha256: and 64 hex digits'],
    [manifestSize === undefined || isSize(manifestSize), 'manifestSize must be a number of bytes'],
  ]
  return rules.filter(([holds]) => !holds).map(([, what]) => what)
}

/** Dependencies that the lock says it has, and has not. */
function missingOf(dependencies: unknown, versions: Map<unknown, unknown>): string[] {
  if (!Array.isArray(dependencies)) return ['dependencies must be a list']
  return dependencies.map(fieldsOf).flatMap(({ packId, resolved, optional }, i) => {
    if (resolved === undefined)
      return optional === true || versions.has(packId)
        ? []
        : [`dependencies.${i}: packs has no ${JSON.stringify(packId)}`]
    return versions.get(packId) === resolved
      ? []
      : [`dependencies.${i}: packs has no ${JSON.stringify(packId)} ${JSON.stringify(resolved)}`]
  })
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {}
}

function isDigest(value: unknown): boolean {
  return typeof value === 'string' && /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/.test(value)
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && Number(value) >= 0
}
