import { setImmediate } from 'node:timers/promises'
import { findCandidates, findLockRows, type LockRow } from '../db/candidates.ts'
import { askRead, type Sql, type Transaction } from '../db/client.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Tag } from '../oci/reference.ts'
import type { Lock, LockedPack } from '../packs/lock.ts'
import type { PackId } from '../packs/pack.ts'
import { type Candidate, type Request, type Resolution, type Root, resolving } from '../packs/resolve.ts'
import type { Range, Version } from '../packs/version.ts'

/** `lock`: its versions are tried first, yanked or not; then those of the channel, for packs that have it. */
export type ResolveRequest = {
  roots: readonly Root[]
  runner?: Version | undefined
  channel?: Tag | undefined
  lock?: Lock | undefined
}

/** Packs of which this is false are unknown to the resolution. */
export type MayPull = (packId: PackId) => boolean

/**
 * Resolves against what is published now: at one moment, where `sql` is not given. Throws UNRESOLVABLE with the chain
 * of reasons, PACK_UNKNOWN for a root, REQUEST_INVALID for a root that is named twice.
 */
export async function resolveLock(
  deps: Deps,
  sql: Sql | Transaction | undefined,
  request: ResolveRequest,
  mayPull: MayPull = () => true,
): Promise<Lock> {
  const { roots, runner, channel } = request
  requireOnce(roots)
  const locked = new Map(request.lock?.packs.map(({ packId, version }) => [packId, version]))
  const run = (on: Sql | Transaction) => resolveOn(on, { roots, runner, locked }, channel, mayPull)
  const packs = await (sql ? run(sql) : atOneMoment(deps, run))
  return {
    lockVersion: 1,
    roots: [...roots].sort((a, b) => (a.packId < b.packId ? -1 : 1)),
    ...(runner === undefined ? {} : { runner }),
    ...(channel === undefined ? {} : { channel }),
    packs,
  }
}

/**
 * A published version with all it needs, by the ids of the packs; the version itself may be yanked. Throws UNRESOLVABLE
 * with the chain of reasons.
 */
export function resolveVersion(
  deps: Deps,
  { packId, version }: { packId: PackId; version: Version },
  { runner, channel }: { runner?: Version | undefined; channel?: Tag | undefined },
  mayPull: MayPull,
): Promise<LockedPack[]> {
  // A version is a range that accepts it alone.
  const roots = [{ packId, version: version as string as Range }]
  const locked = new Map([[packId, version]])
  return atOneMoment(deps, (tx) => resolveOn(tx, { roots, runner, locked }, channel, mayPull))
}

/** Runs statements that all see the registry as it is at one moment. `answerMs`: for what is known to take longer. */
export function atOneMoment<T>(
  deps: Deps,
  run: (tx: Transaction) => Promise<T>,
  limits: { answerMs?: number } = {},
): Promise<T> {
  return askRead(deps.db, (sql) => sql.begin('isolation level repeatable read read only', run), limits) as Promise<T>
}

function requireOnce(roots: readonly Root[]): void {
  const seen = new Set<PackId>()
  for (const { packId } of roots) {
    if (seen.has(packId))
      throw new Failure('REQUEST_INVALID', {
        detail: `the roots name ${packId} twice; name it once, with a range that says both, such as ">=1.2.0 <2.0.0"`,
      })
    seen.add(packId)
  }
}

async function resolveOn(
  sql: Sql | Transaction,
  request: Request,
  channel: Tag | undefined,
  mayPull: MayPull,
): Promise<LockedPack[]> {
  const search = resolving(request)
  let turn = search.next(new Map())
  for (let first = true; !turn.done; ) {
    const asked = turn.value
    if (asked.length === 0) {
      await setImmediate()
      turn = search.next(new Map())
      continue
    }
    const found = await load(sql, asked, channel, mayPull)
    // The roots are what is asked for first.
    if (first) requireKnown(asked, found)
    first = false
    turn = search.next(found)
  }
  return lockedPacks(sql, chosenBy(turn.value))
}

async function load(
  sql: Sql | Transaction,
  asked: readonly PackId[],
  channel: Tag | undefined,
  mayPull: MayPull,
): Promise<Map<PackId, Candidate[]>> {
  const readable = asked.filter(mayPull)
  return readable.length === 0 ? new Map() : findCandidates(sql, readable, channel)
}

function requireKnown(roots: readonly PackId[], found: ReadonlyMap<PackId, unknown>): void {
  const unknown = roots.filter((packId) => !found.has(packId))
  if (unknown.length === 0) return
  const names = unknown.slice(0, 10).join(', ') + (unknown.length > 10 ? ` and ${unknown.length - 10} more` : '')
  throw new Failure('PACK_UNKNOWN', {
    detail: unknown.length === 1 ? `there is no pack ${names}` : `there are no packs ${names}`,
    about: { packIds: unknown.slice(0, 100) },
  })
}

function chosenBy(resolution: Resolution): Map<PackId, Version> {
  if ('chosen' in resolution) return resolution.chosen
  const { words, constraints } = resolution.conflict
  throw new Failure('UNRESOLVABLE', { detail: words, about: { conflict: constraints.slice(0, 100) } })
}

async function lockedPacks(sql: Sql | Transaction, chosen: ReadonlyMap<PackId, Version>): Promise<LockedPack[]> {
  const rows = await findLockRows(sql, chosen)
  if (rows.length < chosen.size)
    throw new Failure('UNRESOLVABLE', { detail: 'a version that was chosen has just been deleted; resolve again' })
  return rows.map((row) => lockedPack(row, chosen))
}

function lockedPack({ title, dependencies, ...row }: LockRow, chosen: ReadonlyMap<PackId, Version>): LockedPack {
  return {
    ...row,
    ...(title === null ? {} : { title }),
    dependencies: dependencies.map((dependency) => {
      const resolved = chosen.get(dependency.packId)
      return { ...dependency, ...(resolved === undefined ? {} : { resolved }) }
    }),
  }
}
