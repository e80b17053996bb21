import { ask, type Sql, type Transaction } from '../db/client.ts'
import {
  bundlesOf,
  bytesOfOnly,
  livingVersions,
  rangesGiven,
  releasesBeside,
  repositoriesMatching,
  type TagRow,
  tagsNamed,
  tagsWithTimes,
  untaggedManifests,
  type VersionRow,
} from '../db/retention-facts.ts'
import type { Deps } from '../deps.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { attachedTo } from '../packs/channel.ts'
import { isPackRepository, type PackId, packIdOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import {
  type Decision,
  decideTags,
  decideUntagged,
  decideVersions,
  needsOf,
  newestFirst,
  type TagFact,
  type VersionFact,
} from './retention-decision.ts'
import { keepingOf, openCoverage, patternsOf, type Rules } from './retention-policy.ts'

// A plan walks through the repositories in the order of their names. What it holds at a time is a page: the versions of
// some packs, or the tags, or some of the untagged manifests, of one plain repository.

/** Decisions on one repository, or a part of one. `position`: how far the walk is with them, to go on from. */
export type Page = {
  repository: RepositoryName
  decisions: Decision[]
  /** Manifests that would go. */
  manifests: Digest[]
  position: string
}

const repositoriesAtOnce = 100
const packsAtOnce = 10
const manifestsAtOnce = 1000

/**
 * Decides on everything the rules are about, page after page. `after`: the position of the page before; empty at first.
 * A position is the name of a repository that is done, or `name@digest` within its untagged manifests.
 */
export async function* planPages(deps: Deps, rules: Rules, after: string, now: number): AsyncGenerator<Page> {
  const coverage = openCoverage(rules)
  const patterns = patternsOf(rules)
  let [last = '', within] = after.split('@', 2) as [string, string?]
  if (within !== undefined)
    yield* planPlain(deps, last as RepositoryName, coverage(last as RepositoryName), now, within)
  for (;;) {
    const page = await ask(deps.db, (sql) => repositoriesMatching(sql, { patterns, last, limit: repositoriesAtOnce }))
    let packs: RepositoryName[] = []
    for (const repository of page) {
      if (isPackRepository(repository)) packs.push(repository)
      if (packs.length === packsAtOnce || (packs.length > 0 && !isPackRepository(repository))) {
        yield* planPacks(deps, packs, coverage, now)
        packs = []
      }
      if (!isPackRepository(repository)) yield* planPlain(deps, repository, coverage(repository), now)
    }
    yield* planPacks(deps, packs, coverage, now)
    last = page.at(-1) ?? ''
    if (page.length < repositoriesAtOnce) return
  }
}

async function* planPacks(
  deps: Deps,
  repositories: readonly RepositoryName[],
  coverage: (repository: RepositoryName) => Rules,
  now: number,
): AsyncGenerator<Page> {
  const packs = repositories.flatMap((repository) => {
    const packId = packIdOf(repository)
    const rules = coverage(repository)
    return packId && actsOn(rules, ['version', 'prerelease']) ? [{ repository, packId, rules }] : []
  })
  if (packs.length === 0) return
  const facts = await ask(deps.db, (sql) =>
    versionFacts(
      sql,
      packs.map(({ packId }) => packId),
    ),
  )
  for (const { repository, packId, rules } of packs) {
    const { versions, manifests }: PackFacts = facts.get(packId) ?? { versions: [], manifests: new Map() }
    const decisions = decideVersions(versions, rules, now)
    const removed = decisions.filter(({ action }) => action === 'remove')
    yield {
      ...{ repository, decisions, position: repository },
      manifests: removed.flatMap(({ name }) => manifests.get(name as Version) ?? []),
    }
  }
}

function actsOn({ policies, acting }: Rules, kinds: readonly Decision['kind'][]): boolean {
  return policies.some((policy) => acting.has(policy.name) && kinds.some((kind) => keepingOf(policy, kind)))
}

type PackFacts = { versions: VersionFact[]; manifests: Map<Version, Digest> }

/** What there is to know of all living versions of packs, or of those of `releases`. */
export async function versionFacts(
  sql: Sql | Transaction,
  packIds: readonly PackId[],
  releases?: readonly Version[],
): Promise<Map<PackId, PackFacts>> {
  const rows = await livingVersions(sql, packIds, releases)
  const ranges = await rangesGiven(sql, packIds)
  const bundles = await bundlesOf(sql, [...new Set(rows.map(({ manifestDigest }) => manifestDigest))])
  const facts = new Map<PackId, PackFacts>()
  for (const packId of packIds) {
    const own = rows.filter((row) => row.packId === packId)
    const needs = needsOf(
      own.map(({ version }) => version),
      ranges.filter((row) => row.packId === packId),
    )
    facts.set(packId, {
      manifests: new Map(own.map(({ version, manifestDigest }) => [version, manifestDigest])),
      versions: own.map((row) => ({
        ...factOf(row),
        needed: needs.get(row.version),
        bundle: bundles.get(row.manifestDigest),
      })),
    })
  }
  return facts
}

/**
 * Decides on one version of a pack as if all were looked at, by those that have a say in it: how many there are above the
 * newest that any policy keeps does not matter, nor what is below. Under the pack's locks: as it will be when they end.
 */
export async function decideOnVersion(
  sql: Sql | Transaction,
  { packId, version }: { packId: PackId; version: Version },
  rules: Rules,
  now: number,
): Promise<{ digest: Digest | undefined; decision: Decision | undefined }> {
  const kept = (['version', 'prerelease'] as const).flatMap((kind) =>
    rules.policies.map((policy) => keepingOf(policy, kind)?.keepNewest ?? 0),
  )
  // At least the highest, which is the latest where all are yanked.
  const releases = await releasesBeside(sql, { packId, version, newest: Math.max(1, ...kept) })
  const { versions = [], manifests } = (await versionFacts(sql, [packId], releases)).get(packId) ?? {}
  const decision = decideVersions(versions, rules, now).find(({ name }) => name === version)
  return { digest: manifests?.get(version), decision }
}

function factOf({ version, state, publishedAt, channels, heldBy, heldWhy }: VersionRow) {
  const hold = heldBy === null ? undefined : { by: heldBy, reason: heldWhy ?? '' }
  return { version, state, publishedAt, channels, hold }
}

/** `within`: the digest of an untagged manifest to go on behind; its tags are done then. */
async function* planPlain(
  deps: Deps,
  repository: RepositoryName,
  rules: Rules,
  now: number,
  within?: string,
): AsyncGenerator<Page> {
  if (isPackRepository(repository)) return
  if (within === undefined && actsOn(rules, ['tag'])) {
    const decisions = await ask(deps.db, (sql) => tagDecisions(sql, repository, rules, now))
    if (decisions.length > 0) yield { repository, decisions, manifests: [], position: `${repository}@` }
  }
  if (!actsOn(rules, ['untagged'])) return
  let last = within ?? ''
  for (;;) {
    const rows = await ask(deps.db, (sql) => untaggedManifests(sql, repository, { last, limit: manifestsAtOnce }))
    const decisions = untaggedDecisions(rows, rules, now)
    last = rows.at(-1)?.digest ?? ''
    const removed = decisions.filter(({ action }) => action === 'remove')
    const isLast = rows.length < manifestsAtOnce
    if (decisions.length > 0)
      yield {
        ...{ repository, decisions, position: isLast ? repository : `${repository}@${last}` },
        manifests: removed.map(({ name }) => name as Digest),
      }
    if (isLast) return
  }
}

export async function tagDecisions(
  sql: Sql | Transaction,
  repository: RepositoryName,
  rules: Rules,
  now: number,
): Promise<Decision[]> {
  return decideTags((await tagsWithTimes(sql, repository)).map(tagFactOf), rules, now)
}

function tagFactOf({ name, movedAt }: TagRow): TagFact {
  return { name, at: movedAt, attachedTo: attachedTo(name as Tag) }
}

/** The newest tags of a repository, as many as any policy keeps for being so (`most`), the newest first. */
export type Newest = { repository: RepositoryName; most: number; tags: readonly TagFact[] }

/**
 * Decides on some tags of a plain repository as if all were looked at. `memory`: the newest tags, as they were when all
 * were. While each of them is there, and none has gone back in time, at least as many are newer than any other tag, so
 * that nothing else has to be read to know that those are not among the newest. Else all tags are looked at again.
 */
export async function decideOnTags(
  sql: Sql | Transaction,
  { repository, names }: { repository: RepositoryName; names: readonly string[] },
  rules: Rules,
  now: number,
  memory: { newest?: Newest },
): Promise<Decision[]> {
  const most = Math.max(0, ...rules.policies.map((policy) => keepingOf(policy, 'tag')?.keepNewest ?? 0))
  const own = (await tagsNamed(sql, repository, names)).map(tagFactOf)
  const { newest } = memory
  const isKnown = newest?.repository === repository && newest.most === most && areBehind(own, newest)
  if (!isKnown || !(await areStillThere(sql, newest)))
    memory.newest = newestOf(repository, (await tagsWithTimes(sql, repository)).map(tagFactOf), most)
  const known = new Map([...(memory.newest?.tags ?? []), ...own].map((tag) => [tag.name, tag]))
  const asked = new Set(names)
  return decideTags([...known.values()], rules, now).filter(({ name }) => asked.has(name))
}

function newestOf(repository: RepositoryName, tags: readonly TagFact[], most: number): Newest {
  return { repository, most, tags: newestFirst(tags.filter((tag) => tag.attachedTo === undefined)).slice(0, most) }
}

/** Whether none of these can have a place among the newest. */
function areBehind(own: readonly TagFact[], { tags, most }: Newest): boolean {
  const oldest = tags.at(-1)?.at ?? Number.POSITIVE_INFINITY
  return tags.length === most && own.every(({ at, attachedTo }) => attachedTo !== undefined || at < oldest)
}

async function areStillThere(sql: Sql | Transaction, { repository, tags }: Newest): Promise<boolean> {
  const names = tags.map(({ name }) => name)
  const times = new Map((await tagsNamed(sql, repository, names)).map(({ name, movedAt }) => [name, movedAt]))
  return tags.every(({ name, at }) => (times.get(name) ?? Number.NEGATIVE_INFINITY) >= at)
}

export function untaggedDecisions(
  rows: Awaited<ReturnType<typeof untaggedManifests>>,
  rules: Rules,
  now: number,
): Decision[] {
  const facts = rows.map(({ digest, since, subject, index }) => ({
    ...{ digest, since, subject: subject ?? undefined, index: index ?? undefined },
  }))
  return decideUntagged(facts, rules, now)
}

/** About how many bytes a page would free. */
export function bytesFreed(deps: Deps, { repository, manifests }: Page): Promise<number> {
  return ask(deps.db, (sql) => bytesOfOnly(sql, repository, manifests))
}
