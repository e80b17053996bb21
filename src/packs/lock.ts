import * as v from 'valibot'
import { type Digest, parseDigest } from '../oci/digest.ts'
import { isMediaType } from '../oci/media-types.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { boundedList } from './bounded-list.ts'
import {
  packIdSchema,
  packTypeSchema,
  rangeSchema,
  rootSchema,
  type Violation,
  versionSchema,
  violationsOf,
} from './document.ts'
import type { PackId, PackType } from './pack.ts'
import type { Root } from './resolve.ts'
import type { Range, Version } from './version.ts'

/** A dependency as it was resolved. An optional one that was left out has no `resolved`. */
export type LockedDependency = { packId: PackId; version: Range; optional?: true; resolved?: Version }

/** A pack in a lock. `digest`, `size` (bytes), `mediaType` and `title` are the content's. */
export type LockedPack = {
  packId: PackId
  version: Version
  type: PackType
  digest: Digest
  size: number
  mediaType: string
  title?: string
  manifestDigest: Digest
  manifestSize: number
  dependencies: LockedDependency[]
}

/**
 * What a resolution found: one version of every pack that is needed, by digest. There is no clock in it: the same
 * registry state and request give the same lock.
 */
export type Lock = { lockVersion: 1; roots: Root[]; runner?: Version; channel?: Tag; packs: LockedPack[] }

/** More than any lock has: who asks names 1000 roots, a document 500 dependencies, and a bundle has 300,000 files. */
const most = { roots: 10_000, dependencies: 1_000, packs: 300_000 }

const digestSchema = v.pipe(
  v.string('must be text'),
  v.check((text) => parseDigest(text) !== undefined, 'must be sha256: and 64, or sha512: and 128 lowercase hex digits'),
  v.metadata({ pattern: '^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$' }),
  v.transform((text) => text as Digest),
)

const sizeSchema = v.pipe(
  v.number('must be a number'),
  v.safeInteger('must be whole'),
  v.minValue(0, 'must not be below 0'),
)

export const channelSchema = v.pipe(
  v.string('must be text'),
  v.check((text) => parseTag(text) !== undefined, 'must be the name of a channel: letters, digits, ".", "_" and "-"'),
  v.metadata({ pattern: '^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$', examples: ['stable'] }),
  v.transform((text) => text as string as Tag),
)

const strict = (what: string) => (issue: { expected: string | null }) =>
  issue.expected === 'never' ? `is not a field of ${what}` : `must be ${what}`

const lockedDependencySchema = v.strictObject(
  {
    packId: packIdSchema,
    version: rangeSchema,
    optional: v.optional(v.literal(true, 'must be true')),
    resolved: v.optional(versionSchema),
  },
  strict('a dependency in a lock'),
)

export const lockedPackSchema = v.strictObject(
  {
    packId: packIdSchema,
    version: versionSchema,
    type: packTypeSchema,
    digest: digestSchema,
    size: sizeSchema,
    mediaType: v.pipe(
      v.string('must be text'),
      v.check(isMediaType, 'must be a media type'),
      v.description('A media type.'),
    ),
    title: v.optional(v.string('must be text')),
    manifestDigest: digestSchema,
    manifestSize: sizeSchema,
    dependencies: boundedList(lockedDependencySchema, most.dependencies),
  },
  strict('a pack in a lock'),
)

const namesOnce = (list: { packId: PackId }[]) => new Set(list.map((entry) => entry.packId)).size === list.length
const once = <Entry extends { packId: PackId }>() => v.check<Entry[], string>(namesOnce, 'must name a pack once only')

/** Source: spec/packs.md; media type `packMediaTypes.lock`. */
export const lockSchema = v.pipe(
  v.strictObject(
    {
      lockVersion: v.literal(1, 'must be 1, the only version of locks there is'),
      roots: v.pipe(boundedList(rootSchema, most.roots), once()),
      runner: v.optional(versionSchema),
      channel: v.optional(channelSchema),
      packs: v.pipe(boundedList(lockedPackSchema, most.packs), once()),
    },
    strict('a lock'),
  ),
  v.transform((lock) => lock as Lock),
)

/** A lock, whoever wrote it; or everything that is wrong with it. */
export function parseLock(value: unknown): Lock | { violations: Violation[] } {
  const result = v.safeParse(lockSchema, value)
  return result.success ? result.output : { violations: violationsOf(result.issues) }
}

const byPackId = <Entry extends { packId: PackId }>(list: readonly Entry[]) =>
  [...list].sort((a, b) => (a.packId < b.packId ? -1 : 1))

/** The bytes of a lock: JSON without spaces, keys in the order of the types above, lists by pack id. */
export function lockBytes({ roots, runner, channel, packs }: Lock): Buffer {
  const document: Lock = {
    lockVersion: 1,
    roots: byPackId(roots).map(({ packId, version }) => ({ packId, version })),
    ...(runner === undefined ? {} : { runner }),
    ...(channel === undefined ? {} : { channel }),
    packs: byPackId(packs).map((pack) => ({
      ...{ packId: pack.packId, version: pack.version, type: pack.type },
      ...{ digest: pack.digest, size: pack.size, mediaType: pack.mediaType },
      ...(pack.title === undefined ? {} : { title: pack.title }),
      ...{ manifestDigest: pack.manifestDigest, manifestSize: pack.manifestSize },
      dependencies: byPackId(pack.dependencies).map(({ packId, version, optional, resolved }) => ({
        ...{ packId, version },
        ...(optional ? { optional } : {}),
        ...(resolved === undefined ? {} : { resolved }),
      })),
    })),
  }
  return Buffer.from(JSON.stringify(document))
}
