import { type AuditEntry, insertEvents } from '../db/audit.ts'
import { ask, type Transaction } from '../db/client.ts'
import { deleteUnnamed, lockManifests } from '../db/closures.ts'
import { lockRemovals, markRemovals, type Removal } from '../db/retention.ts'
import { bytesOfOnly, lockTags, untaggedManifests } from '../db/retention-facts.ts'
import { deleteTag } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { packIdOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { lockForDeletion, removeVersion } from './pack-removal.ts'
import { rulesNow } from './retention.ts'
import type { Decision } from './retention-decision.ts'
import { decideOnTags, decideOnVersion, type Newest, untaggedDecisions } from './retention-plan.ts'
import { openCoverage, type Rules } from './retention-policy.ts'

// The world has moved since the plan, so each decision is made again, from what is there now and by the policies as they
// are now, in the transaction that carries it out. What it depends on cannot change before that ends:
//
// - a version: its pack is locked, and then dependencies, as for every deletion (packs.ts). Channels of the pack are set,
//   its versions are published, held and deleted under the first; what comes to depend on it, and bundles, under both.
// - tags: their rows are locked. What is pushed meanwhile to other tags only makes these older.
// - untagged manifests: their rows, and those of what refers to them, are locked. To tag one, or to push it again, takes
//   that lock, and is seen by the next statement, or comes after. An index has no such tie to what it lists: who pushes one
//   pushes its members first, which makes them new again.
//
// Then the decisions themselves are locked, and those that somebody else has carried out meanwhile are left out. Policies
// are read before: one that is removed in the same moment counts as later.

/** What came of a decision: `reason` says why it was not carried out. */
type Mark = { number: number; outcome: 'removed' | 'kept' | 'gone'; reason?: string | undefined }

/** What one group of removals tells the next: see `decideOnTags`. */
export type Memory = { newest?: Newest }

/** Carries out decisions on one repository, all of one kind. */
export async function removeDecided(
  deps: Deps,
  run: string,
  policy: string | undefined,
  removals: readonly [Removal, ...Removal[]],
  memory: Memory = {},
): Promise<void> {
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const [{ kind, repository }] = removals
      const rules = await rulesNow(tx, policy)
      const covering = openCoverage(rules ?? { policies: [], acting: new Set() })(repository)
      const act = kind === 'tag' ? removeTags : kind === 'untagged' ? removeUntagged : removeVersions
      const { marks, freed, entries } = await act(deps, tx, { run, repository, removals, rules: covering, memory })
      if (marks.length === 0) return
      await markRemovals(tx, run, marks, freed)
      if (entries.length > 0) await insertEvents(tx, entries)
    }),
  )
}

type Work = { run: string; repository: RepositoryName; removals: readonly Removal[]; rules: Rules; memory: Memory }
type Done = { marks: Mark[]; freed: number; entries: AuditEntry[] }

async function removeVersions(deps: Deps, tx: Transaction, { run, repository, removals, rules }: Work): Promise<Done> {
  const done: Done = { marks: [], freed: 0, entries: [] }
  const packId = packIdOf(repository)
  if (!packId) return done
  await lockForDeletion(tx, packId)
  for (const removal of await stillWaiting(tx, run, removals)) {
    const version = removal.name as Version
    const { digest, decision } = await decideOnVersion(tx, { packId, version }, rules, Date.now())
    const mark = markOf(removal, digest !== undefined, decision)
    if (mark.outcome === 'removed' && digest) {
      done.freed += await bytesOfOnly(tx, repository, [digest])
      await removeVersion(deps, tx, packId, version)
      done.entries.push(entryOf(run, removal, `/packs/${packId}/${version}`, digest))
    }
    done.marks.push(mark)
  }
  return done
}

async function removeTags(_deps: Deps, tx: Transaction, work: Work): Promise<Done> {
  const { run, repository, removals, rules, memory } = work
  const names = removals.map(({ name }) => name)
  const there = new Set(await lockTags(tx, repository, names))
  const waiting = await stillWaiting(tx, run, removals)
  const decisions = byName(await decideOnTags(tx, { repository, names }, rules, Date.now(), memory))
  const marks = waiting.map((removal) => markOf(removal, there.has(removal.name), decisions.get(removal.name)))
  const going = removed(waiting, marks)
  for (const { name } of going) await deleteTag(tx, repository, name as Tag)
  const entries = going.map((removal) => entryOf(run, removal, `/v2/${repository}/manifests/${removal.name}`))
  return { marks, freed: 0, entries }
}

async function removeUntagged(deps: Deps, tx: Transaction, { run, repository, removals, rules }: Work): Promise<Done> {
  const digests = removals.map(({ name }) => name as Digest)
  await lockManifests(tx, repository, digests)
  const waiting = await stillWaiting(tx, run, removals)
  const rows = await untaggedManifests(tx, repository, { limit: digests.length, digests })
  const there = new Set<string>(rows.map(({ digest }) => digest))
  const decisions = byName(untaggedDecisions(rows, rules, Date.now()))
  const marks = waiting.map((removal) => markOf(removal, there.has(removal.name), decisions.get(removal.name)))
  const going = removed(waiting, marks)
  const doomed = going.map(({ name }) => name as Digest)
  const freed = await bytesOfOnly(tx, repository, doomed)
  await deleteUnnamed(tx, repository, doomed, deps.config.gcGraceSeconds)
  const entries = going.map((removal) =>
    entryOf(run, removal, `/v2/${repository}/manifests/${removal.name}`, removal.name as Digest),
  )
  return { marks, freed, entries }
}

async function stillWaiting(tx: Transaction, run: string, removals: readonly Removal[]): Promise<Removal[]> {
  const numbers = await lockRemovals(
    tx,
    run,
    removals.map(({ number }) => number),
  )
  return removals.filter(({ number }) => numbers.has(number))
}

function markOf({ number }: Removal, isThere: boolean, decision: Decision | undefined): Mark {
  if (!isThere) return { number, outcome: 'gone', reason: 'it was not there any more, or had become something else' }
  if (decision?.action === 'remove') return { number, outcome: 'removed' }
  return { number, outcome: 'kept', reason: decision?.reason ?? 'no policy says so any more' }
}

function removed(removals: readonly Removal[], marks: readonly Mark[]): Removal[] {
  const numbers = new Set(marks.filter(({ outcome }) => outcome === 'removed').map(({ number }) => number))
  return removals.filter(({ number }) => numbers.has(number))
}

function byName(decisions: readonly Decision[]): Map<string, Decision> {
  return new Map(decisions.map((decision) => [decision.name, decision]))
}

/** What is written down of a removal: the policy did it, for its reason, in this run. */
function entryOf(run: string, removal: Removal, path: string, digest?: Digest): AuditEntry {
  const { repository, kind, name, policy, reason } = removal
  return {
    ...{ who: policy, kind: 'policy', tokenId: undefined, address: '', action: `retention ${kind}` },
    ...{ path, repository, digest, tags: kind === 'tag' ? name : undefined, reason },
    ...{ outcome: 'done', status: 200, requestId: run },
  }
}
