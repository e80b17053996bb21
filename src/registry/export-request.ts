import { defaultLimits } from '../bundles/read.ts'
import type { Transaction } from '../db/client.ts'
import { type LivingVersion, livingVersions } from '../db/exports.ts'
import type { Deps } from '../deps.ts'
import { Failure, type FailureKey } from '../errors.ts'
import { lockBytes } from '../packs/lock.ts'
import type { PackId } from '../packs/pack.ts'
import type { Root } from '../packs/resolve.ts'
import { type MayPull, type ResolveRequest, resolveLock } from './resolve.ts'

/**
 * What is to leave. `all`: every version of every pack, instead of roots. `inventory`: what the receiver holds, as it was
 * answered by its GET /inventory and parsed.
 */
export type ExportRequest = ResolveRequest & {
  all: boolean
  referrers: boolean
  channels: boolean
  inventory: unknown
}

/** Something that keeps a bundle from being made. */
export type Problem = { code: FailureKey; detail: string; about?: Record<string, unknown> }

/** The versions that leave, and the lock that says so; or everything that keeps them from it. */
export type Choice = { packs: LivingVersion[]; lock: Buffer; problems: Problem[] }

/**
 * Chooses what leaves. Nothing is resolved for a whole site, which has many versions of a pack: its lock is empty, and
 * index.json, which the signature covers too, names every version.
 */
export async function chooseVersions(
  deps: Deps,
  tx: Transaction,
  request: ExportRequest,
  mayPull: MayPull,
): Promise<Choice> {
  if (request.all) {
    const packs = await everyVersion(tx, mayPull)
    const nothing: Problem = { code: 'PACK_UNKNOWN', detail: 'there is no pack here yet' }
    const problems = packs.length === 0 ? [nothing] : packs.length > mostFiles ? [tooMany(packs.length)] : []
    return { packs: packs.length > mostFiles ? [] : packs, lock: emptyLock, problems }
  }
  const problems: Problem[] = []
  const lock = await resolveKnown(deps, tx, request, mayPull, problems)
  if (!lock) return { packs: [], lock: emptyLock, problems }
  const packs = lock.packs.map(({ packId, version, type, size, manifestDigest }) => ({
    ...{ packId, version, type, size, manifestDigest },
  }))
  return { packs, lock: lockBytes(lock), problems }
}

const emptyLock = lockBytes({ lockVersion: 1, roots: [], packs: [] })

/** As many rows as one statement answers. */
const pageRows = 50_000

/** Stops where they are too many for a file. */
async function everyVersion(tx: Transaction, mayPull: MayPull): Promise<LivingVersion[]> {
  const packs: LivingVersion[] = []
  let after = { packId: '', precedence: '' }
  for (let rows = pageRows; rows === pageRows && packs.length <= mostFiles; ) {
    const page = await livingVersions(tx, after, pageRows)
    for (const { precedence: _, ...version } of page) if (mayPull(version.packId)) packs.push(version)
    rows = page.length
    after = page.at(-1) ?? after
  }
  return packs
}

/** Files that a bundle may have; with those beside them, as many as its readers take. */
export const mostFiles = defaultLimits.entries - 10

/** `count`: files, or versions, each of which has at least one. */
export function tooMany(count: number): Problem {
  return {
    code: 'CONTENT_TOO_LARGE',
    detail: `a bundle has at most ${mostFiles} files, some 100,000 versions, and this would be more than ${Math.min(count, mostFiles)}: name the packs, and make several bundles`,
  }
}

/** More roots than these are not looked at one by one. */
const mostSingle = 100

/** Roots that are there; of those that are not, and of every one that cannot be resolved, the problems tell. */
async function resolveKnown(
  deps: Deps,
  tx: Transaction,
  request: ExportRequest,
  mayPull: MayPull,
  problems: Problem[],
) {
  const tryRoots = async (roots: readonly Root[]) => {
    try {
      return await resolveLock(deps, tx, { ...request, roots }, mayPull)
    } catch (error) {
      return asProblem(error)
    }
  }
  let roots = request.roots
  let found = await tryRoots(roots)
  if ('code' in found && found.code === 'PACK_UNKNOWN') {
    problems.push(found)
    const unknown = new Set(found.about?.packIds as PackId[])
    roots = roots.filter(({ packId }) => !unknown.has(packId))
    if (roots.length === 0) return undefined
    found = await tryRoots(roots)
  }
  if (!('code' in found)) return found
  const alone: Problem[] = []
  for (const root of roots.length > 1 ? roots.slice(0, mostSingle) : []) {
    const single = await tryRoots([root])
    if ('code' in single) alone.push(single)
  }
  // Where each would do by itself, it is together that they do not.
  problems.push(...(alone.length > 0 ? alone : [found]))
  return undefined
}

/** Throws what is no matter of what was asked for. */
export function asProblem(error: unknown): Problem {
  if (!(error instanceof Failure) || typeof error.detail !== 'string' || error.key === 'REQUEST_INVALID') throw error
  const { key, detail, about } = error
  return { code: key, detail, ...(about ? { about } : {}) }
}

/** All problems as one failure, under the code of the first. Undefined where there are none. */
export function failureOf(problems: readonly Problem[]): Failure | undefined {
  const [first, ...others] = problems
  if (!first) return undefined
  if (others.length === 0)
    return new Failure(first.code, { detail: first.detail, ...(first.about ? { about: first.about } : {}) })
  return new Failure(first.code, {
    detail: problems.map(({ detail }) => detail).join('; '),
    about: { problems },
  })
}
