import type { Sql, Transaction } from '../db/client.ts'
import { type ReleaseNow, releasesNow } from '../db/import-publish.ts'
import { type TagNow, tagsNow } from '../db/tags.ts'
import { goesBack } from '../packs/channel.ts'
import { inWords } from '../packs/document.ts'
import type { PackId } from '../packs/pack.ts'
import type { Candidate } from '../packs/resolve.ts'
import { releaseOf, runs, type Version } from '../packs/version.ts'
import { badDependencies, openPublished } from './dependencies.ts'
import type { Plan, PlannedTag, PlannedVersion, Problem } from './import-plan.ts'

/** What would become of a version or a channel. `from`: the version that the channel names now. */
export type VersionFate = { packId: PackId; version: Version; manifestDigest: string; outcome: 'new' | 'present' }
export type ChannelFate = {
  packId: PackId
  channel: string
  version: string
  outcome: 'new' | 'moved' | 'present'
  from?: string
  /** It goes back to an older version, because it was told to. */
  backwards?: true
}

/** A plan, held against what is published. */
export type Judgement = {
  versions: VersionFate[]
  channels: ChannelFate[]
  /** Tags that would be set. */
  tags: PlannedTag[]
  problems: Problem[]
}

export type JudgeOptions = {
  /** Channels may go back. */
  force: boolean
  /** The runner that all of it has to run on. */
  runner: Version | undefined
  /** Packs of which this is false are as unknown to whoever sends it as those that there are not. */
  mayPull(packId: PackId): boolean
}

/** Holds a plan against what is published now: everything that is in its way, at once. */
export async function judge(sql: Sql | Transaction, plan: Plan, options: JudgeOptions): Promise<Judgement> {
  const { force, runner, mayPull } = options
  const problems: Problem[] = []
  const releases = byName(await releasesNow(sql, plan.versions), (row) => `${row.packId} ${row.release}`)
  const tags = byName(await tagsNow(sql, plan.tags), (row) => `${row.packId} ${row.tag}`)
  const versions = plan.versions.flatMap((version): VersionFate[] => {
    const fate = fateOf(version, releases.get(`${version.packId} ${releaseOf(version.version)}`))
    if (!('key' in fate)) return [fate]
    problems.push(fate)
    return []
  })
  if (runner !== undefined)
    for (const version of plan.versions) for (const bad of notFor(runner, version)) problems.push(bad)
  const fresh = new Set(versions.filter(({ outcome }) => outcome === 'new').map(({ manifestDigest }) => manifestDigest))
  const needing = plan.versions.filter(({ manifestDigest }) => fresh.has(manifestDigest))
  for (const bad of await badNeeds(sql, plan.versions, needing, mayPull)) problems.push(bad)
  const channels = channelFates(plan.tags, tags, force, problems)
  const set = plan.tags.filter(({ kind }) => kind !== 'latest')
  return { versions, channels, tags: set, problems }
}

function byName<Row>(rows: readonly Row[], nameOf: (row: Row) => string): Map<string, Row> {
  return new Map(rows.map((row) => [nameOf(row), row]))
}

function fateOf(
  { packId, version, manifestDigest }: PlannedVersion,
  there: ReleaseNow | undefined,
): VersionFate | Problem {
  const fate = { packId, version, manifestDigest }
  if (!there) return { ...fate, outcome: 'new' }
  if (there.manifestDigest === manifestDigest && there.version === version) return { ...fate, outcome: 'present' }
  if (there.manifestDigest === null)
    return {
      ...{ key: 'VERSION_SPENT', packId, version },
      message: `${there.version} was deleted here, and the number of a version is never used again`,
    }
  const other = there.version === version ? '' : ` as ${there.version}, and a build part makes no other version`
  return {
    ...{ key: 'VERSION_EXISTS', packId, version },
    message: `it is published here already${other}, as ${there.manifestDigest}; the bundle has ${manifestDigest}. Versions never change`,
  }
}

function notFor(runner: Version, { packId, version, document: { metadata } }: PlannedVersion): Problem[] {
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  const [min, max] = [text(metadata.minRunnerVersion), text(metadata.maxRunnerVersion)]
  if (runs(runner, { min, max })) return []
  const needs = [min && `at least ${min}`, max && `at most ${max}`].filter(Boolean).join(' and ')
  return [{ key: 'RUNNER_TOO_OLD', packId, version, message: `needs a runner of ${needs}, and not ${runner}` }]
}

/** Dependencies that neither the bundle nor the registry satisfies. Everything in the bundle counts as published. */
async function badNeeds(
  sql: Sql | Transaction,
  all: readonly PlannedVersion[],
  fresh: readonly PlannedVersion[],
  mayPull: JudgeOptions['mayPull'],
): Promise<Problem[]> {
  const needing = fresh.filter(({ document }) => document.dependencies.length > 0)
  if (needing.length === 0) return []
  const along = new Map<PackId, Candidate[]>()
  for (const { packId, version, document } of all)
    along.set(packId, [...(along.get(packId) ?? []), { version, state: 'active', dependencies: document.dependencies }])
  const published = openPublished(sql, along)
  // In one question what would be asked pack by pack.
  await published.load(needing.flatMap(({ document }) => document.dependencies.map(({ packId }) => packId)))
  const problems: Problem[] = []
  for (const { packId, version, document, carried } of needing) {
    // Of a pack that may not be read, only what comes along counts.
    const hidden = document.dependencies.filter((entry) => !mayPull(entry.packId))
    const brought = hidden.flatMap(({ packId: id }) =>
      (along.get(id) ?? []).map((one) => ({ packId: id, version: one.version })),
    )
    const allowed = { allowMissing: false, carried: [...carried, ...brought], mayPull }
    const bad = await badDependencies(sql, document, allowed, published)
    if (bad.length > 0) problems.push({ key: 'DEPENDENCY_INVALID', packId, version, message: inWords(bad) })
  }
  return problems
}

/** Where channels would go. One that would go back, `latest` among them, is a problem, unless that is meant. */
function channelFates(
  tags: readonly PlannedTag[],
  now: ReadonlyMap<string, TagNow>,
  force: boolean,
  problems: Problem[],
): ChannelFate[] {
  return tags.flatMap(({ packId, tag, digest, kind, version }): ChannelFate[] => {
    if ((kind !== 'channel' && kind !== 'latest') || version === undefined) return []
    const there = now.get(`${packId} ${tag}`)
    const isBack = goesBack(there?.version, version)
    if (isBack && !force)
      problems.push({
        ...{ key: 'IMPORT_BACKWARDS', packId, version },
        message: `${tag} names ${there?.version} here, and an older version, ${version}, in the bundle`,
      })
    // The registry keeps it: the highest stable version, whatever comes in.
    if (kind === 'latest') return []
    if (!there) return [{ packId, channel: tag, version, outcome: 'new' }]
    if (there.digest === digest) return [{ packId, channel: tag, version, outcome: 'present' }]
    const from = there.version ?? there.digest
    return [{ packId, channel: tag, version, outcome: 'moved', from, ...(isBack ? { backwards: true } : {}) }]
  })
}
